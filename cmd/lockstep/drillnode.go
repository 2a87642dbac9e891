package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"lockstep/cmd/lockstep/api"
	"lockstep/cmd/lockstep/child"
	"lockstep/cmd/lockstep/node"
	"lockstep/wanem/sites"
)

// drillNode is a node in a site of its own name.
type drillNode struct {
	sites *sites.Sites
	site  sites.Site
	exe   string
	args  []string

	log, data, socket string
	image             string // of the file system that data is on; "" if it is nothing special
	proc              *child.Process
}

// nodePort is free: every site has a network namespace of its own.
const nodePort = "7800"

func (n *drillNode) addr() string { return net.JoinHostPort(n.sites.Addr(n.site).String(), nodePort) }

// onImage runs a program where an image is mounted on a directory, in a mount
// namespace of its own: the mount goes with the process, however that ends. The
// process stays the one that was started.
const onImage = `mount -o loop "$1" "$2" && shift 2 && exec "$@"`

func (n *drillNode) start() error {
	if err := os.MkdirAll(n.data, 0o700); err != nil {
		return fmt.Errorf("start node %s: %w", n.site, err)
	}
	name, args := n.exe, n.args
	if n.image != "" {
		name, args = "unshare", append([]string{"--mount", "--", "sh", "-c", onImage, "sh", n.image, n.data, n.exe}, n.args...)
	}
	// Not with the drill's context: an interrupted drill stops its nodes in good order.
	var err error
	n.proc, err = child.Start("node "+string(n.site), n.log, n.sites.Command(context.Background(), n.site, name, args...))
	return err
}

// inside is a path as the node's mount namespace has it.
func (n *drillNode) inside(path string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", n.proc.Cmd.Process.Pid), path)
}

func (n *drillNode) client() *api.Client {
	return api.Unix(filepath.Join(n.inside(n.data), node.AdminSocket))
}

func (n *drillNode) ask(ctx context.Context, method, path string, ask, out any) error {
	client := n.client()
	defer client.Close()
	return client.Get(ctx, method, path, ask, out)
}

var errNoVolume = errors.New("it does not know the volume")

// volume is how the volume stands, as this node sees it.
func (n *drillNode) volume(ctx context.Context) (*api.VolumeStatus, error) {
	var status api.Status
	if err := n.ask(ctx, http.MethodGet, "/status", nil, &status); err != nil {
		return nil, err
	}
	for _, v := range status.Volumes {
		if v.Volume != nil && v.Name == volumeName {
			return &v, nil
		}
	}
	return nil, errNoVolume
}

// makeImage makes a file system in a file, sparse and large enough for a copy of the
// volume and what else a node keeps.
func makeImage(path string, volume int64) (string, error) {
	const more = 1 << 30
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(2*volume+more), f.Close())
	}
	if err != nil {
		return "", fmt.Errorf("make a disk: %w", err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", path).CombinedOutput(); err != nil {
		return "", fmt.Errorf("make a disk: mkfs.ext4 %s: %w: %s", path, err, out)
	}
	return path, nil
}
