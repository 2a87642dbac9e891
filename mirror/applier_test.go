package mirror

import (
	"bytes"
	"testing"

	"lockstep/mirror/wire"
)

// TestSentAgainUndoesNothing: a replica whose acknowledgements were lost is sent writes again
// that it has. Until the last of them is there again, none may undo what came after it: the
// replica may take over amid that, and it remembers having applied all of them.
func TestSentAgainUndoesNothing(t *testing.T) {
	p := &pair{t: t}
	p.newReplica(nil)
	connect := func(session wire.ID, epoch uint64) {
		p.connect(wire.Hello{Size: peerSize, ID: volumeA, Session: session}, epoch)
	}
	write := func(seq uint64, value byte, parts int) {
		data := bytes.Repeat([]byte{value}, 4096)
		for i := range parts {
			h := wire.Header{Kind: wire.KindWrite, Epoch: p.peer.Epoch(), Seq: seq, Offset: uint64(i * 4096), Length: 4096, Payload: 4096, CRC: wire.Checksum(data)}
			if i < parts-1 {
				h.Flags = wire.More
			}
			if err := p.applier.Handle(&h, data); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(when string, want byte) {
		t.Helper()
		got := make([]byte, 1)
		if err := p.store.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if got[0] != want {
			t.Errorf("%s the block holds write %d, want %d", when, got[0], want)
		}
	}
	connect(reignOne, 5)
	write(1, 1, 2)
	write(2, 2, 1)
	connect(reignOne, 5)
	write(1, 1, 2)
	check("sent 1 again", 2)
	write(2, 2, 1)
	write(3, 3, 1)
	check("sent all again and one more", 3)
	if applied, _ := p.follower.Acknowledgement(); applied != 3 {
		t.Errorf("acknowledges %d, want 3", applied)
	}
	// Another primary's numbers begin anew.
	connect(reignTwo, 6)
	write(1, 9, 1)
	check("under the next primary", 9)
}
