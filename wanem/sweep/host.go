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
	// Emulated tells whether a program plays the CPU (QEMU's TCG), not the hardware.
	Emulated bool `json:"emulated"`
}

// ThisHost looks at the machine that this runs on.
func ThisHost() Host {
	model := cpuModel()
	return Host{Kernel: kernel(), CPU: model, CPUs: runtime.NumCPU(), Go: runtime.Version(), Emulated: isEmulated(model)}
}

// isEmulated goes by the name that QEMU gives to the CPU that it emulates.
func isEmulated(model string) bool { return strings.Contains(model, "QEMU TCG") }

// slow says what a reader of figures from an emulated CPU must know; "" for a real one.
func (h Host) slow() string {
	if !h.Emulated {
		return ""
	}
	return "emulated CPU (TCG): CPU work about 17 times slower than on the hardware"
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
