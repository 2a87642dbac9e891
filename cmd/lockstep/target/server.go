package target

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"lockstep/wanem/sites"
)

const nbdPort = "10809" // free: every site is a namespace of its own

// serveAtB serves a file at site B over NBD, by nbdkit. It returns the server's address.
func (c *Config) serveAtB(ctx context.Context, r *run, path string) (host string, err error) {
	host = c.Sites.Addr(sites.B).String()
	ready := filepath.Join(c.Scratch, r.name+"-nbdkit.pid")
	if err := os.Remove(ready); err != nil && !os.IsNotExist(err) {
		return "", err
	}
	// It dies with this process; its context would kill it before it could end.
	cmd := c.Sites.Command(context.Background(), sites.B, "nbdkit", nbdkitArgs(host, ready, path)...)
	if _, err := r.start("nbdkit", cmd); err != nil {
		return "", err
	}
	return host, r.await(ctx, func() error {
		_, err := os.Stat(ready) // it is there once nbdkit listens
		return err
	})
}

func nbdkitArgs(host, ready, path string) []string {
	return []string{"--foreground", "--pidfile=" + ready, "--ipaddr=" + host, "--port=" + nbdPort, "file", path}
}

func serverCommand(host string) string {
	return fmt.Sprintf("site b: nbdkit --ipaddr=%s --port=%s file b", host, nbdPort)
}
