package nbd

// Backend executes the requests of every connection to one export.
//
// Submit hands over requests in the order in which one connection sent them;
// they were validated (range, alignment, flags, length, permission) and the
// backend never checks again. It may execute them in any order the protocol
// allows and must hand each back to [Complete] exactly once, before Submit
// returns or later, from any goroutine.
//
// Submit is called by one goroutine per connection, so concurrently for
// different connections. While it runs, its connection reads nothing, and the
// connection's replies are held back so that they leave together: it must not
// wait for anything but the work that it does inline, least of all for another
// request. The batch slice is the caller's and is reused after Submit returns;
// the *Requests in it are the backend's until Complete.
//
// What a backend owes:
//   - CmdFlush covers every write that was handed to Complete before the flush
//     came in with Submit, on whichever connection.
//   - FlagFUA makes what the request itself changed durable before Complete.
//   - CmdRead fills all of Data or sets Err. CmdTrim and CmdWriteZeroes of up to
//     4 GiB - 1 cover every byte; both leave zeroes.
//   - FlagFastZero, only seen if Export.FastZero is set: ENOTSUP, having changed
//     nothing, unless it is faster than writing.
//   - Every request ends. A backend that gives up completes what it holds with
//     an error, or connections and Shutdown wait for it.
type Backend interface {
	Submit(batch []*Request)
}

// Attachment is the Backend of one connection. Close is called once, after the last
// of its requests was completed.
type Attachment interface {
	Backend
	Close()
	// Over is closed when nothing can be done for the client here any more: then its
	// connection is closed, so that it comes again or goes elsewhere. Nil: never.
	Over() <-chan struct{}
}
