package forward

import (
	"io"
	"testing"
	"testing/synctest"

	"lockstep/mirror"
)

// disown is what a volume does whose disk hangs: it keeps op, and gives a copy back.
func disown(op *mirror.Op) {
	c := &mirror.Op{Kind: op.Kind, Off: op.Off, Len: op.Len, Data: op.Data, Origin: op.Origin, Tag: op.Tag, Err: mirror.ErrDeposed}
	if op.Kind == mirror.Read {
		c.Data = make([]byte, len(op.Data))
	}
	op.Origin, op.Tag = nil, nil
	Dispatch([]*mirror.Op{c})
}

// TestWhatAHungDiskKeepsIsLeftToIt: the copy goes on to the next primary, and comes
// back instead of the op.
func TestWhatAHungDiskKeepsIsLeftToIt(t *testing.T) {
	v, w := &stepVolume{t: t}, &stepVolume{t: t}
	var got []*mirror.Op
	f := NewFront(FrontConfig{Size: testSize, Complete: func(ops []*mirror.Op) { got = append(got, ops...) }})
	defer f.Close()
	f.Route(Route{Volume: v})
	read := &mirror.Op{Kind: mirror.Read, Data: make([]byte, 4), Len: 4, Tag: "read"}
	write := &mirror.Op{Kind: mirror.Write, Data: make([]byte, 4), Len: 4, Tag: "write"}
	f.Submit([]*mirror.Op{read, write})
	disown(read)
	disown(write)
	f.Route(Route{Volume: w})
	if len(w.ops) != 2 || w.ops[0] == read || w.ops[1] == write || w.ops[1].Origin == nil || !w.ops[1].Origin.Retry {
		t.Fatalf("%d ops went on", len(w.ops))
	}
	copy(read.Data, "late")
	copy(w.ops[0].Data, "good")
	w.give(0, nil)
	w.give(0, nil)
	if len(got) != 2 || got[0].Tag != "read" || got[1].Tag != "write" || string(got[0].Data) != "good" || got[0].Err != nil {
		t.Errorf("%d ops came back", len(got))
	}
}

// TestAServerForgetsWhatAHungDiskKeeps: the client is told to ask the next primary,
// and neither the op nor its memory is used again.
func TestAServerForgetsWhatAHungDiskKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // who says nothing for 400 ms is given up
		s := NewServer(ServerConfig{Size: testSize})
		defer s.Close()
		submitted := make(chan *mirror.Op, 1)
		nc, _, err := shake(s, submitterFunc(func(ops []*mirror.Op) { submitted <- ops[0] }), hello{session: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.Write(encode(header{kind: kindRead, tag: 5, length: 512}, nil)) //nolint:errcheck // the next line waits for it
		op := <-submitted
		r, data := op.Tag.(*request), op.Data //nolint:errcheck // the session set it
		go disown(op)
		for {
			b := make([]byte, HeaderSize)
			var h header
			if _, err := io.ReadFull(nc, b); err != nil || h.decode(b) != nil {
				t.Fatal(err)
			}
			if h.kind == kindPing {
				continue
			}
			if h.kind != kindReply || h.tag != 5 || h.flags != flagAgain || h.payload != 0 {
				t.Errorf("the client gets %+v", h)
			}
			break
		}
		synctest.Wait() // the session is through with it
		for range 100 {
			if requestPool.Get() == any(r) {
				t.Error("the request is used again")
			}
			if b := getBuffer(512); &b.b[0] == &data[0] {
				t.Error("its memory is used again")
			}
		}
	})
}
