package api

import (
	"errors"
	"fmt"
)

// Settled says what is not well with a volume; nil if it has a primary that serves
// and every copy is in sync.
func (v *VolumeStatus) Settled() error {
	switch {
	case v.Primary == "" || v.Standing == nil:
		return fmt.Errorf("nobody leads, %s", v.Error)
	case v.Suspended != "":
		return fmt.Errorf("suspended: %s", v.Suspended)
	case v.Standing.Epoch != v.Epoch:
		return fmt.Errorf("epoch %d is on record, the primary is at %d", v.Epoch, v.Standing.Epoch)
	case !v.Standing.Ready:
		return errors.New("the primary is not ready")
	}
	for _, r := range v.Replicas {
		if !r.InSync {
			return fmt.Errorf("the copy at node %s is not in sync", r.Node)
		}
	}
	return nil
}
