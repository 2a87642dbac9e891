package sweep

import (
	"os"
	"runtime"
	"slices"
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
	// CountsInstructions tells whether time is what that program has done, 2 ns for each
	// instruction (scripts/vm.sh --clock instructions).
	CountsInstructions bool `json:"counts_instructions,omitempty"`
}

// ThisHost looks at the machine that this runs on.
func ThisHost() Host {
	model := cpuModel()
	commandLine, _ := os.ReadFile("/proc/cmdline") // without it, nothing is known of the clock
	return Host{
		Kernel: kernel(), CPU: model, CPUs: runtime.NumCPU(), Go: runtime.Version(),
		Emulated: isEmulated(model), CountsInstructions: countsInstructions(string(commandLine)),
	}
}

// isEmulated goes by the name that QEMU gives to the CPU that it emulates.
func isEmulated(model string) bool { return strings.Contains(model, "QEMU TCG") }

// countsInstructions goes by what scripts/vm.sh tells the kernel.
func countsInstructions(commandLine string) bool {
	return slices.Contains(strings.Fields(commandLine), "lockstep.clock=instructions")
}

// slow says what a reader of figures from an emulated CPU must know; "" for a real one.
func (h Host) slow() string {
	switch {
	case h.CountsInstructions:
		return "emulated CPU (TCG) whose clock counts its instructions, 2 ns each: CPU work takes not what it takes on the hardware, and what else the host does is not in them"
	case h.Emulated:
		return "emulated CPU (TCG): CPU work about 17 times slower than on the hardware"
	}
	return ""
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
