package nbd

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// serverMode makes the test binary a server that inherited its socket, as real
// clients start one: "activated" or "stdio".
const serverMode = "LOCKSTEP_NBD_TEST_SERVER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(serverMode); mode != "" {
		if err := serveInherited(mode); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func serveInherited(mode string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s, err := NewServer(Config{Exports: []Export{disk(5 << 20)}})
	if err != nil {
		return err
	}
	if mode == "stdio" {
		var nc net.Conn
		if nc, err = Stdio(); err != nil {
			return err
		}
		fmt.Println("this must not reach the client")
		return s.ServeConn(ctx, nc)
	}
	ls, err := Activated()
	if err != nil || len(ls) != 1 {
		return fmt.Errorf("%d listeners, %w", len(ls), err)
	}
	return s.Serve(ctx, ls[0])
}
