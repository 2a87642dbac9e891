package nbd

import "strings"

// Error says what failed, on what, why and how to mend it.
type Error struct {
	Op      string // what was being done: "listen", "dial", "handshake", "write"
	Subject string // on what: an address, an export, a range
	Err     error  // the cause
	Hint    string // how to mend it; may be empty
}

// Error is one line: operation, subject, cause, hint.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("nbd: " + e.Op)
	if e.Subject != "" {
		b.WriteString(" " + e.Subject)
	}
	b.WriteString(": " + e.Err.Error())
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
