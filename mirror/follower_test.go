package mirror

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"lockstep/mirror/dirty"
	"lockstep/mirror/wire"
)

const followerSize = 1 << 20

var (
	volumeA  = wire.ID{1}
	volumeB  = wire.ID{2}
	reignOne = wire.ID{11}
	reignTwo = wire.ID{12}
)

func helloOf(volume, session wire.ID) *wire.Hello {
	return &wire.Hello{Size: followerSize, Session: session, ID: volume, Volume: "vol"}
}

// admittedFollower is a full copy of volumeA that reignOne connected to under epoch 5.
func admittedFollower(t *testing.T) *Follower {
	t.Helper()
	f := NewFollower(Identity{Volume: volumeA, Epoch: 5, Complete: true}, followerSize, false, 0)
	admit(t, f, reignOne, 5)
	return f
}

func admit(t *testing.T, f *Follower, session wire.ID, epoch uint64) wire.Welcome {
	t.Helper()
	w, err := f.Admit(helloOf(volumeA, session), epoch, 0)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// finishFollower ends what the primary does to make f a full copy.
func finishFollower(t *testing.T, f *Follower) {
	t.Helper()
	if err := f.Finish(f.configurations); err != nil {
		t.Fatal(err)
	}
}

// ledBy is the hello of a primary with that store.
func ledBy(store wire.ID) *wire.Hello {
	h := helloOf(volumeA, reignOne)
	h.Replica = store
	return h
}

func TestFollowerAdmits(t *testing.T) {
	full := Identity{Volume: volumeA, Replica: wire.ID{7}, Epoch: 5, Complete: true}
	lossy := Identity{Volume: volumeA, Epoch: 5, Lossy: true}
	small, fresh := helloOf(volumeA, reignOne), helloOf(volumeA, reignOne)
	small.Size, fresh.Fresh = 4096, true
	for name, c := range map[string]struct {
		id    Identity
		blank bool
		led   []wire.ID // in sync when it was the primary
		hello *wire.Hello
		epoch uint64
		want  wire.Welcome
		after Identity
		err   string
	}{
		"a full copy": {id: full, hello: helloOf(volumeA, reignOne), epoch: 5,
			want: wire.Welcome{Replica: wire.ID{7}, Epoch: 5, Complete: true, Known: true}, after: full},
		"under a higher epoch, which it keeps": {id: full, hello: helloOf(volumeA, reignOne), epoch: 9,
			want:  wire.Welcome{Replica: wire.ID{7}, Epoch: 9, Complete: true, Known: true},
			after: Identity{Volume: volumeA, Replica: wire.ID{7}, Epoch: 9, Complete: true}},
		"under a lower epoch": {id: full, hello: helloOf(volumeA, reignOne), epoch: 4, err: ErrFenced.Error(), after: full},
		"one that lost power": {id: lossy, hello: helloOf(volumeA, reignOne), epoch: 5,
			want: wire.Welcome{Epoch: 5, Lossy: true, Known: true}, after: lossy},
		"an empty store": {blank: true, hello: fresh, epoch: 1,
			want: wire.Welcome{Epoch: 1}, after: Identity{Volume: volumeA, Epoch: 1}},
		"a full copy of who knows what": {blank: true, id: Identity{Complete: true, Lossy: true}, hello: helloOf(volumeA, reignOne), epoch: 1,
			want: wire.Welcome{Epoch: 1}, after: Identity{Volume: volumeA, Epoch: 1}},
		"another volume":    {id: full, hello: helloOf(volumeB, reignOne), epoch: 9, err: ErrWrongVolume.Error(), after: full},
		"another size":      {id: full, hello: small, epoch: 9, err: "4096 bytes", after: full},
		"data of no volume": {hello: fresh, epoch: 1, err: "nothing was overwritten"},
		"who it led when it was the primary": {id: full, led: []wire.ID{{9}, {8}}, hello: ledBy(wire.ID{8}), epoch: full.Epoch + 1,
			want: wire.Welcome{Epoch: full.Epoch + 1, Replica: full.Replica, Known: true}, after: Identity{Volume: volumeA, Replica: full.Replica, Epoch: full.Epoch + 1}},
		"who it did not": {id: full, led: []wire.ID{{9}}, hello: ledBy(wire.ID{8}), epoch: 9, err: "was served as the volume's primary itself",
			after: Identity{Volume: full.Volume, Replica: full.Replica, Epoch: full.Epoch}},
	} {
		f := NewFollower(c.id, followerSize, c.blank, 0)
		if c.led != nil {
			f.Led(c.led)
		}
		w, err := f.Admit(c.hello, c.epoch, 0)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q", name, err, c.err)
			}
		} else if c.want.Size = followerSize; err != nil || w != c.want {
			t.Errorf("%s: welcome %+v, %v, want %+v", name, w, err, c.want)
		}
		if f.Identity() != c.after {
			t.Errorf("%s: identity is %+v after it, want %+v", name, f.Identity(), c.after)
		}
	}
}

func TestFollowerAccepts(t *testing.T) {
	for name, c := range map[string]struct {
		before func(f *Follower)
		h      wire.Header
		err    error
	}{
		"a write":                {h: wire.Header{Kind: wire.KindWrite, Epoch: 5, Seq: 11, Length: 512}},
		"of an earlier epoch":    {h: wire.Header{Kind: wire.KindWrite, Epoch: 4, Seq: 11, Length: 512}},
		"of a later epoch":       {h: wire.Header{Kind: wire.KindWrite, Epoch: 6, Seq: 11}, err: wire.ErrCorrupt},
		"a configuration ahead":  {h: wire.Header{Kind: wire.KindConfigure, Epoch: 6}},
		"a seq again":            {h: wire.Header{Kind: wire.KindFlush, Epoch: 5, Seq: 10}, err: wire.ErrCorrupt},
		"what needs no seq":      {h: wire.Header{Kind: wire.KindPing, Epoch: 5}},
		"at the end":             {h: wire.Header{Kind: wire.KindZero, Epoch: 5, Seq: 11, Offset: followerSize - 512, Length: 512}},
		"across the end":         {h: wire.Header{Kind: wire.KindZero, Epoch: 5, Seq: 11, Offset: followerSize - 511, Length: 512}, err: wire.ErrCorrupt},
		"a sum across the end":   {h: wire.Header{Kind: wire.KindSum, Epoch: 5, Offset: followerSize, Length: 1}, err: wire.ErrCorrupt},
		"a copy":                 {h: wire.Header{Kind: wire.KindCopy, Epoch: 5, Length: 512}},
		"a copy as to a learner": {h: wire.Header{Kind: wire.KindCopy, Flags: wire.Learner, Epoch: 5, Length: 512}, err: wire.ErrCorrupt},
		"a copy to a learner": {before: func(f *Follower) { f.Configure(&wire.Header{Epoch: 5, Flags: wire.Learner}) },
			h: wire.Header{Kind: wire.KindCopy, Flags: wire.Learner, Epoch: 5, Length: 512}},
		"the next part":          {before: inParts, h: wire.Header{Kind: wire.KindWrite, Epoch: 5, Seq: 11}},
		"amid parts":             {before: inParts, h: wire.Header{Kind: wire.KindWrite, Epoch: 5, Seq: 12}, err: wire.ErrCorrupt},
		"a heartbeat amid parts": {before: inParts, h: wire.Header{Kind: wire.KindPing, Epoch: 5}},
		"a copy amid parts":      {before: inParts, h: wire.Header{Kind: wire.KindCopy, Epoch: 5}, err: wire.ErrCorrupt},
		"when it takes over itself": {before: func(f *Follower) { f.Fence(6) },
			h: wire.Header{Kind: wire.KindWrite, Epoch: 5, Seq: 11}, err: ErrFenced},
		"a ping when it takes over itself": {before: func(f *Follower) { f.Fence(6) },
			h: wire.Header{Kind: wire.KindPing, Epoch: 5}, err: ErrFenced},
	} {
		f := admittedFollower(t)
		f.Applied(&wire.Header{Kind: wire.KindFlush, Seq: 10})
		if c.before != nil {
			c.before(f)
		}
		if err := f.Accept(&c.h); !errors.Is(err, c.err) || c.err == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
	}
}

func inParts(f *Follower) {
	f.Applied(&wire.Header{Kind: wire.KindWrite, Seq: 11, Flags: wire.More})
}

// TestFollowerAcknowledgesWholeOps: a part counts for nothing.
func TestFollowerAcknowledgesWholeOps(t *testing.T) {
	f := admittedFollower(t)
	if f.Applied(&wire.Header{Kind: wire.KindWrite, Seq: 3, Flags: wire.More}) {
		t.Error("the first part is to be acknowledged")
	}
	if applied, _ := f.Acknowledgement(); applied != 0 {
		t.Errorf("applied %d after a part, want 0", applied)
	}
	if !f.Applied(&wire.Header{Kind: wire.KindWrite, Seq: 3}) {
		t.Error("the last part is not to be acknowledged")
	}
	f.Durable(3)
	f.Durable(2)
	if applied, durable := f.Acknowledgement(); applied != 3 || durable != 3 {
		t.Errorf("applied %d, durable %d, want 3 and 3", applied, durable)
	}
	admit(t, f, reignOne, 5)
	if applied, durable := f.Acknowledgement(); applied != 0 || durable != 0 {
		t.Errorf("a new connection begins with applied %d, durable %d", applied, durable)
	}
}

// TestFollowerFences: who was promised a new primary obeys no old one, not its
// configurations either, and keeps the highest epoch.
func TestFollowerFences(t *testing.T) {
	f := admittedFollower(t)
	f.Fence(7)
	if err := f.Configure(&wire.Header{Kind: wire.KindConfigure, Epoch: 6}); !errors.Is(err, ErrFenced) {
		t.Errorf("configured to epoch 6 below its fence of 7: %v", err)
	}
	if err := f.Promise(time.Hour); !errors.Is(err, ErrFenced) {
		t.Errorf("promised the old primary: %v", err)
	}
	if _, err := f.Admit(helloOf(volumeA, reignTwo), 6, 0); !errors.Is(err, ErrFenced) {
		t.Errorf("admitted epoch 6 below its fence of 7: %v", err)
	}
	f.Fence(3)
	if err := f.Configure(&wire.Header{Kind: wire.KindConfigure, Epoch: 7}); err != nil {
		t.Errorf("refused epoch 7: %v", err)
	}
	if f.Identity().Epoch != 7 {
		t.Errorf("keeps epoch %d, want 7", f.Identity().Epoch)
	}
}

func TestFollowerIsALearnerUntilItsFinish(t *testing.T) {
	f := NewFollower(Identity{Volume: volumeA, Epoch: 5, Lossy: true}, followerSize, false, 0)
	admit(t, f, reignOne, 5)
	if err := f.Configure(&wire.Header{Epoch: 5}); err != nil || !f.Identity().Lossy {
		t.Errorf("a configuration that makes it no learner changed %+v (%v)", f.Identity(), err)
	}
	if err := f.Configure(&wire.Header{Epoch: 6, Flags: wire.Learner}); err != nil {
		t.Fatal(err)
	}
	if id := f.Identity(); id.Complete || id.Lossy || id.Epoch != 6 {
		t.Errorf("a learner under epoch 6 is %+v", id)
	}
	if err := f.Finish(f.configurations - 1); err == nil || f.Identity().Complete {
		t.Errorf("a finish from before it was made a learner counts: %+v, %v", f.Identity(), err)
	}
	if finishFollower(t, f); !f.Identity().Complete {
		t.Errorf("finished, and still %+v", f.Identity())
	}
}

// TestFollowerSaysWhatMayDiffer: the writes above the watermark if this run knows
// them all, which it does from its first finish on; else its write-intent bitmap.
func TestFollowerSaysWhatMayDiffer(t *testing.T) {
	intents := dirty.New(followerSize, 65536)
	f := admittedFollower(t)
	if s := f.State(intents); s.Intents != intents || s.Written != nil {
		t.Errorf("a new run says %+v", s)
	}
	finishFollower(t, f)
	write := func(seq, watermark uint64, off int64) {
		h := &wire.Header{Kind: wire.KindWrite, Seq: seq, Watermark: watermark, Offset: uint64(off), Length: 4096}
		f.Writing(h)
		f.Applied(h)
	}
	write(1, 0, 0)
	write(2, 0, 8192)
	write(3, 1, 65536)
	check := func(when string, want ...Range) {
		t.Helper()
		if s := f.State(intents); s.Intents != nil || !slices.Equal(s.Written, want) {
			t.Errorf("%s it says %+v, want %v", when, s, want)
		}
	}
	check("above watermark 1", Range{8192, 4096}, Range{65536, 4096})
	// The next primary's numbers begin anew.
	admit(t, f, reignTwo, 6)
	write(1, 1, 131072)
	check("under the next primary", Range{8192, 4096}, Range{65536, 4096})
	f.Copying(&wire.Header{Kind: wire.KindCopy, Length: 4096})
	check("with a copy of it", Range{8192, 4096}, Range{65536, 4096}, Range{0, 4096})
	finishFollower(t, f)
	check("after all were made to agree")
	// A copy may hold writes that others lack, until the watermark passes them.
	f.Copying(&wire.Header{Kind: wire.KindCopy, Seq: 2, Offset: 4096, Length: 4096})
	finishFollower(t, f)
	check("with a copy that may hold write 2", Range{4096, 4096})
	write(2, 2, 0)
	check("when that is committed")
}

// TestFollowerForgetsOriginsThatACopyMayUndo: what it remembers of retries must be of
// what it holds, or it answers for what is not there.
func TestFollowerForgetsOriginsThatACopyMayUndo(t *testing.T) {
	f := admittedFollower(t)
	f.Remember(&wire.Header{Flags: wire.Complete}, origins(Origin{Session: 1, Number: 1}))
	f.From(origins(Origin{Session: 1, Number: 2}))
	if f.Applied(&wire.Header{Kind: wire.KindWrite, Seq: 1, Flags: wire.More}); len(all(f.Origins())) != 1 {
		t.Errorf("remembers an op of which a part was applied: %v", all(f.Origins()))
	}
	f.Applied(&wire.Header{Kind: wire.KindWrite, Seq: 1})
	want := []Origin{{Session: 1, Number: 1}, {Session: 1, Number: 2}}
	if o := f.Origins(); !o.Whole || !slices.Equal(all(o), want) {
		t.Errorf("remembers %v, whole %v, want %v", all(o), o.Whole, want)
	}
	f.Copying(&wire.Header{Kind: wire.KindCopy, Length: 512}) // a repair by the same primary
	if o := f.Origins(); !o.Whole || len(all(o)) != 2 {
		t.Errorf("a repair made it forget: %v, whole %v", all(o), o.Whole)
	}
	admit(t, f, reignTwo, 6)
	if o := f.Origins(); !o.Whole || len(all(o)) != 2 {
		t.Errorf("a new primary alone made it forget: %v, whole %v", all(o), o.Whole)
	}
	f.Copying(&wire.Header{Kind: wire.KindCopy, Length: 512})
	if o := f.Origins(); o.Whole || len(all(o)) != 0 {
		t.Errorf("still remembers %v, whole %v, after the next primary's copy", all(o), o.Whole)
	}
}

// TestFollowerTakesOriginsAsAWhole: the primary's snapshot replaces what there was, and
// one that was cut short does not go on with the next.
func TestFollowerTakesOriginsAsAWhole(t *testing.T) {
	f := admittedFollower(t)
	f.Remember(&wire.Header{Flags: wire.More}, origins(Origin{Session: 1, Number: 1}))
	if f.Origins().Whole {
		t.Error("whole amid a snapshot")
	}
	admit(t, f, reignTwo, 6)
	f.Remember(&wire.Header{Flags: wire.More}, origins(Origin{Session: 2, Number: 1}))
	f.Remember(&wire.Header{Flags: wire.Complete}, origins(Origin{Session: 2, Number: 3}))
	want := []Origin{{Session: 2, Number: 1}, {Session: 2, Number: 3}}
	if o := f.Origins(); !o.Whole || !slices.Equal(all(o), want) {
		t.Errorf("remembers %v, whole %v, want %v", all(o), o.Whole, want)
	}
	f.Remember(&wire.Header{}, nil)
	if o := f.Origins(); o.Whole || len(all(o)) != 0 {
		t.Errorf("remembers %v, whole %v, of a primary that forgot", all(o), o.Whole)
	}
}

func origins(list ...Origin) (b []byte) {
	for _, o := range list {
		w := wire.Origin{Session: o.Session, Number: o.Number, Lowest: o.Lowest, Known: o.Known}
		b = w.Append(b)
	}
	return b
}

func all(o Origins) []Origin { return slices.Collect(o.All) }
