package main

import (
	"fmt"
	"net"
	"os"
	"strings"
)

// systemdNotify tells systemd, if that started the process with Type=notify, what it
// is at: READY=1, STOPPING=1, STATUS=text (sd_notify(3)).
func systemdNotify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if strings.HasPrefix(path, "@") { // an abstract socket, whose name begins with 0
		path = "\x00" + path[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
