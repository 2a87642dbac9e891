package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// inVM is where everything is that the targets need.
const inVM = "(scripts/vm.sh run -- COMMAND runs it where all of it is)"

// needRoot says whether this process may do to the kernel what it likes, which root of
// a user namespace may not.
func needRoot() error {
	uids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return fmt.Errorf("look whether this is root: %w", err)
	}
	if os.Geteuid() != 0 || !wholeMap(string(uids)) {
		return errors.New("it changes the kernel's block devices: run as root " + inVM)
	}
	return nil
}

// wholeMap says whether a uid_map is that of no user namespace.
func wholeMap(text string) bool {
	fields := strings.Fields(text)
	return len(fields) == 3 && fields[0] == "0" && fields[1] == "0" && fields[2] == "4294967295"
}

// needTool looks for a program of a Debian package.
func needTool(program, pkg string) error {
	if _, err := findTool(program); err != nil {
		return fmt.Errorf("%s is not here: install %s %s", program, pkg, inVM)
	}
	return nil
}

// findTool looks where a user's PATH may not, too.
func findTool(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", program))
}

// needModule looks whether a kernel module is there, or can be loaded.
func needModule(name string) error {
	if hasModule(name) {
		return nil
	}
	modprobe, err := findTool("modprobe")
	if err == nil {
		err = exec.Command(modprobe, "--dry-run", name).Run()
	}
	if err != nil {
		return fmt.Errorf("this kernel has no module %s %s", name, inVM)
	}
	return nil
}

func hasModule(name string) bool {
	_, err := os.Stat("/sys/module/" + name)
	return err == nil
}

// loadModule loads a module with parameters, unless it is there. It stays: others may
// have begun to use it.
func loadModule(ctx context.Context, name string, params ...string) error {
	if hasModule(name) {
		return nil
	}
	modprobe, err := findTool("modprobe")
	if err != nil {
		return fmt.Errorf("load module %s: %w", name, err)
	}
	if _, err := tool(ctx, modprobe, append([]string{name}, params...)...); err != nil {
		return fmt.Errorf("load module %s: %w", name, err)
	}
	return nil
}
