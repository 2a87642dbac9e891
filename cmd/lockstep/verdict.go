package main

import "fmt"

// verdict is the exit code of a command that did what was asked, and whose answer
// is not the good one. The answer has been printed: there is no more to say.
type verdict int

const (
	exitDegraded verdict = 3 // status: not every replica is in sync
	exitDiffers  verdict = 4 // verify: copies differed, even if they were repaired
	exitHeld     verdict = 5 // detach: the device is in use
)

func (v verdict) Error() string {
	switch v {
	case exitDegraded:
		return "not every replica is in sync"
	case exitDiffers:
		return "copies of the volume differ"
	case exitHeld:
		return "the device is in use"
	}
	return fmt.Sprintf("exit code %d", int(v))
}
