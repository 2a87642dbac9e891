package mirror

import (
	"lockstep/mirror/dirty"
	"lockstep/mirror/internal/sabotage"
	"lockstep/mirror/wire"
)

// maxRanges is how many ranges fit one frame.
const maxRanges = wire.MaxPayload / wire.RangeSize

// Greet answers the hello of a primary: it has the follower admit it, keeps what
// that changed, and sends a welcome and the ranges that may differ here. The
// error says why the primary was refused; nothing was sent then.
func (a *Applier) Greet(h *wire.Header, payload []byte) error {
	if err := h.Check(payload); err != nil {
		return err
	}
	var hello wire.Hello
	if err := hello.Decode(payload); err != nil {
		return err
	}
	a.mu.Lock()
	welcome, err := a.follower.Admit(&hello, h.Epoch, a.now())
	a.connection = a.follower.connection
	id := a.follower.Identity()
	written, _ := a.follower.Written()
	a.mu.Unlock()
	if err != nil {
		return err
	}
	if err := Persist(a.store, id, whyLearner); err != nil {
		return err
	}
	if err := a.send(wire.Header{Kind: wire.KindWelcome}, welcome.Append(nil)); err != nil {
		return err
	}
	if !welcome.Remembers && !sabotage.On("intents") {
		written = rangesOf(a.store.Intents())
	}
	return a.sendRanges(written)
}

// rangesOf lists what is in m.
func rangesOf(m *dirty.Map) (list []Range) {
	for off := int64(0); ; {
		start, n, ok := m.Next(off, m.Size())
		if !ok {
			return list
		}
		list = append(list, Range{start, n})
		off = start + n
	}
}

// sendRanges sends at least one frame, so that the primary knows when it has all.
func (a *Applier) sendRanges(list []Range) error {
	for {
		part := list[:min(len(list), maxRanges)]
		list = list[len(part):]
		var b []byte
		for _, r := range part {
			w := wire.Range{Off: uint64(r.Off), Len: uint64(r.Len)}
			b = w.Append(b)
		}
		h := wire.Header{Kind: wire.KindRanges}
		if len(list) > 0 {
			h.Flags = wire.More
		}
		if err := a.send(h, b); err != nil || len(list) == 0 {
			return err
		}
	}
}
