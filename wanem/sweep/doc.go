// Package sweep is the experiment: it sets one distance after another on an
// emulated link, loads mirrored volumes across it, and says how write latency
// grows with distance and where it crosses a budget.
//
// # What one sweep does
//
//	targets x distances x repeats = trials, in an order drawn from the seed
//	each trial:  (the first of a target: measure the RTT of its bare link) ->
//	             set link -> measure RTT ->
//	             (cold and idle writes -> compare the replicas) ->
//	             warm-up -> load -> read back and check ->
//	             compare the replicas byte for byte -> measure RTT -> file
//	at the end:  fit -> report
//
// Every trial opens the volume anew, so that trials do not lean on each other,
// and leaves one file, written atomically; a sweep that was stopped goes on
// from those (Config.Resume). The order is random so that whatever drifts on
// the machine spreads over all targets and distances instead of bending the line
// of one.
//
// # Targets
//
// What is measured is a Target: lockstep, DRBD, or whatever else makes a volume.
// This package knows nothing of them but how to open one, to reach it (a Device in
// this process, a Source for other programs) and to have its copies compared. With
// several the report puts them side by side and prints what was set on each, and why:
// a comparison is worth as much as its settings.
//
// A target may have one copy only and cross no link (TargetFacts.OneCopy): the floor
// that the others are to be held against. It has neither round trips nor limits.
//
// # What is timed
//
// Closed loop (Config.Rate 0): QueueDepth goroutines, each calling WriteAt and
// waiting; at depth 1 a single goroutine, so no hand-over is in the figure.
// The latency of a write is from the call to its return.
//
// Open loop (Config.Rate > 0): write i is due at start + i/rate, whatever
// became of the others, and its latency counts from when it was due. A stall
// is thus seen by every write that it delayed, not by one (coordinated
// omission). At most QueueDepth writes run at once; later ones wait, and their
// wait counts. What was due but not started one second after the window's end
// is recorded with the lateness that it had then, and the trial is labelled
// RateMissed.
//
// A write counts when it began (or was due) within the window; the window
// ends only when the last of them returned, so a stall at the end is in too.
// Filling the payload and reading the clock are outside of the timed part.
//
// A volume that is a block device is used past the page cache (see OpenDisk), and fio
// uses it by libaio with direct=1; one that is an NBD export is used over NBD.
//
// With Pgbench, PostgreSQL runs on a file system on the block device and a commit is
// what is timed. Its log gives the latency of each transaction, and those that began
// within the window count, as writes do. Everything that commits need is on (fsync,
// synchronous_commit, full_page_writes); what would disturb some trials only is off
// (autovacuum, timed checkpoints).
//
// Cold writes (the first over a fresh connection) and after-idle writes show
// whether the path needs extra round trips to get going, as TCP's slow start
// would. They are single writes of 4 KiB and 1 MiB, reported apart.
//
// # Integrity
//
// Every block says who wrote it, when and where (see stamp), and goroutines
// write disjoint blocks, so what a block must hold at the end is known to the
// byte. After each load all blocks that it wrote are read back and compared,
// and after each use of the volume the replicas' files, before the next start
// could make them equal. A mismatch ends the sweep. A database is stopped as a crash
// would stop it, recovered from the device past all caches, and must hold every
// transaction that was told to be committed, each in all of its four tables.
//
// # Statistics
//
// Latencies are kept in HDR histograms of three significant figures (an error
// of at most 0.1 %) from 1 ns to 60 s. The p50, p90 and p99 of a distance are
// the median of its repeats', so that one repeat that met a busy machine does
// not decide them; p99.9, p99.99, maximum, mean and the distribution are of all
// writes of all repeats together and hide nothing. Confidence intervals are over
// repeats (Student's t), not over writes: writes of one repeat share its
// conditions.
//
// The lines are Theil-Sen fits over all trials, the median of the slopes of all
// pairs: up to 29 % of the trials may be off without moving it, and a shared
// machine does have such trials. Its interval is the distribution-free one of
// Sen (1968). Round trips per write is the slope of the median latency against
// the *achieved* RTT, which needs no trust in the emulator; the slope against km
// and the figure that follows from it are given beside it.
//
// What is not known is not said. A p99 takes 100 writes in each trial, a p99.9 takes
// 1,000 and a p99.99 takes 10,000 in all; where there are fewer it is left out, of
// tables, figures and limits, and a note says so. A slope whose interval has no bounds,
// or a half-width of more than a quarter of it, or that is not positive, is printed
// with its interval but gives no answer; the report says what is lacking. Two
// distances of three repeats cannot have an interval of 95 %: their nine slopes
// hold the true one in nine of ten cases only.
//
// # Fidelity
//
// An RTT may be longer than the wanted one by what the same link takes without any
// distance on this machine, by 20 us of scheduling and by 2 %; shorter by the latter two
// only. The RTT without distance is measured first, and is in the report; from 5 ms on
// the machine is no use and the sweep ends. A packet that is dropped though none was to
// be is a miss, too, and so is a volume that lost a copy for a while. On an emulated CPU the report says so beside its figures.
//
// An RTT that is off is measured up to three times, before the load with the
// link set anew, since a busy moment of the machine is no property of the link;
// the report says how many measurements were repeated.
// A trial whose link was not as wanted then is labelled (see Fidelity) and left out
// of figures, fit and limits, and the report says so. A distance without one
// good trial is shown with its label only.
//
// # Expected cost
//
// A trial takes warm-up + duration + about a second, with Pgbench another five. Memory is 8 bytes for
// each block of the volume and about 200 KiB for each goroutine of the load.
package sweep
