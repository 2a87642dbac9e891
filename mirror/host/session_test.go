package host

import (
	"context"
	"errors"
	"testing"

	"lockstep/mirror"
	"lockstep/mirror/control"
	"lockstep/mirror/forward"
)

// TestSessionsAreShared: what attaches with one session is one client to the volume, until
// the last of it leaves or a later one comes.
func TestSessionsAreShared(t *testing.T) {
	c := newTestCluster(t, "a", "b")
	c.create("a", "b")
	c.inSync("a", "a", "b")
	seat := c.seat("a")
	attach := func(at *Seat, who Client) (*forward.Front, error) {
		return at.Attach(context.Background(), who, func(ops []*mirror.Op) {
			for _, op := range ops {
				op.Tag.(chan *mirror.Op) <- op
			}
		}, nil)
	}
	vm := Client{Name: "vm", Session: control.Session{Agent: "x", Stay: 1}, Size: testSize}
	for what, wrong := range map[string]Client{
		"another size":        {Name: "vm", Session: vm.Session, Size: testSize / 2},
		"another incarnation": {Name: "vm", Session: vm.Session, Size: testSize, Incarnation: 1},
	} {
		if _, err := attach(seat, wrong); !errors.Is(err, ErrBehind) {
			t.Errorf("who was told of %s: %v", what, err)
		}
	}
	one, err := attach(seat, vm)
	if err != nil {
		t.Fatal(err)
	}
	two, err := attach(seat, vm)
	if err != nil || two != one {
		t.Fatalf("the second has %p, %v, want %p", two, err, one)
	}
	seat.Detach(one)
	u := &user{t: t, front: two}
	u.write(0, 7)
	vm.Session.Stay = 2
	moved, err := attach(c.seat("b"), vm)
	if err != nil {
		t.Fatal(err)
	}
	defer c.seat("b").Detach(moved)
	<-two.Over()
	if err := u.do(&mirror.Op{Kind: mirror.Flush}); !errors.Is(err, forward.ErrSuperseded) {
		t.Errorf("an op of the earlier stay: %v", err)
	}
	seat.Detach(two)
	vm.Session.Stay = 1
	if _, err := attach(seat, vm); !errors.Is(err, ErrSuperseded) {
		t.Errorf("the earlier stay again: %v", err)
	}
}
