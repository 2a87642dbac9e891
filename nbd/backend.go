package nbd

// Backend executes the requests of every connection to one export.
//
// Submit hands over requests in the order in which one connection sent them;
// they were validated (range, flags, length) and the backend never checks
// again. The backend may execute them in any order the protocol allows and must
// hand each back to [Complete] exactly once, before Submit returns or later,
// from any goroutine. Submit is called by one goroutine per connection, so
// concurrently for different connections. It should not block for longer than
// the work that it does inline: while it runs, its connection reads nothing.
// The batch slice itself belongs to the caller and is reused after Submit
// returns; the *Requests in it are the backend's until Complete.
type Backend interface {
	Submit(batch []*Request)
}
