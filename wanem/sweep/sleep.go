package sweep

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// coarse is how far before a due time Go's timers are trusted: they overshoot
// by up to a millisecond.
const coarse = 3 * time.Millisecond

// sleep waits for d, to some microseconds on a thread that precise prepared.
func sleep(d time.Duration) {
	end := time.Now().Add(d)
	if d > coarse {
		time.Sleep(d - coarse)
	}
	for {
		left := time.Until(end)
		if left <= 0 {
			return
		}
		nap := unix.NsecToTimespec(int64(left))
		// An interrupted nap is resumed by the loop.
		_ = unix.Nanosleep(&nap, nil)
	}
}

// precise locks the goroutine to a thread whose naps end on time, until the
// returned function is called.
func precise() (restore func()) {
	const defaultSlack = 50_000 // ns, Linux's own
	runtime.LockOSThread()
	// Without it naps are some 50 us late: worse, but no reason to fail.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	return func() {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, defaultSlack, 0, 0, 0)
		runtime.UnlockOSThread()
	}
}
