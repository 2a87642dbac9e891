package sweep

import (
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is the machine that a sweep ran on.
type Host struct {
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Go     string `json:"go"`
}

func thisHost() Host {
	return Host{Kernel: kernel(), CPU: cpuModel(), CPUs: runtime.NumCPU(), Go: runtime.Version()}
}

func kernel() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:]) +
		" " + unix.ByteSliceToString(name.Machine[:])
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // not on every machine: then it is unknown
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
