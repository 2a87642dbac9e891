package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"lockstep/mirror/dirty"
	"lockstep/mirror/store/memfs"
)

// A volume of regions of eight sectors: two and a half at first, and half a one more
// whenever it grows, up to four.
const (
	crashSize    = 5 * crashRegion / 2
	crashLargest = 4 * crashRegion
	crashRegion  = 4096
	crashSectors = crashLargest / SectorSize
)

var crashPeer = [16]byte{15: 9}

// crashModel is a store and what may be found of it after a crash.
type crashModel struct {
	disk *memfs.FS
	boot byte
	s    *Store

	size   int64 // of the volume
	grows  int64 // a growth to this size did not end; 0: none
	goesOn bool  // that is what is asked for after a crash, and not the old size

	value  byte // of the last write
	synced [crashSectors]byte
	since  [crashSectors][]byte // written since the last sync, maybe in part
	must   [4]bool              // regions whose intents nobody retired

	epoch       uint64 // the first Update makes it a full copy
	epochs      []uint64
	mayBeClean  bool
	missed      uint32 // out-of-sync blocks, one bit each
	saved       bool   // there is a file
	saving      bool   // a change of it did not end
	savingSaved bool
	saves       uint32
	written     bool
}

func newCrashModel(t *testing.T, seed uint64) *crashModel {
	m := &crashModel{disk: memfs.New(seed), size: crashSize, goesOn: seed%2 == 0}
	err := errors.Join(m.disk.MkdirAll("/disk", 0o700), m.disk.MkdirAll("/meta", 0o700), m.disk.SyncDir("/"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *crashModel) open() (err error) { return m.openAs(m.size, false) }

func (m *crashModel) openAs(size int64, grow bool) (err error) {
	boot := m.boot
	m.s, err = Open(Options{
		Path: "/disk/data", Meta: "/meta/data", Size: size, Grow: grow, Region: crashRegion, Block: SectorSize, FS: m.disk,
		BootID: func() ([16]byte, error) { return [16]byte{boot}, nil },
		NewID:  func() [16]byte { return [16]byte{1} },
	})
	if err == nil {
		m.mayBeClean = false
	}
	return err
}

// A crashOp is one letter of the sequences that are tried.
type crashOp struct {
	name string
	run  func(m *crashModel) error
}

var crashOps = []crashOp{
	{"write across regions", func(m *crashModel) error { return m.write(crashRegion-SectorSize, 3*SectorSize) }},
	{"write", func(m *crashModel) error { return m.write(2*crashRegion, 2*SectorSize) }},
	{"zero", func(m *crashModel) error { return m.zero(crashRegion, crashRegion+SectorSize) }},
	{"sync", (*crashModel).sync},
	{"retire", (*crashModel).retire},
	{"update", (*crashModel).update},
	{"save", func(m *crashModel) error { return m.save(m.missed<<3 | 5) }},
	{"remove", (*crashModel).remove},
	{"stop", (*crashModel).stop},
}

var growth = crashOp{"grow", (*crashModel).grow}

func (m *crashModel) write(off, n int64) error {
	m.value++
	m.begin(off, n, m.value)
	if err := m.s.WriteAt(bytes.Repeat([]byte{m.value}, int(n)), off); err != nil {
		return err
	}
	m.ended(off, n)
	return nil
}

func (m *crashModel) zero(off, n int64) error {
	m.begin(off, n, 0)
	if err := m.s.Zero(off, n, false); err != nil {
		return err
	}
	m.ended(off, n)
	return nil
}

func (m *crashModel) begin(off, n int64, value byte) {
	for i := off / SectorSize; i < (off+n)/SectorSize; i++ {
		m.since[i] = append(m.since[i], value)
	}
}

func (m *crashModel) ended(off, n int64) {
	m.written = true
	for r := off / crashRegion; r*crashRegion < off+n; r++ {
		m.must[r] = true
	}
}

func (m *crashModel) sync() error {
	if err := m.s.Sync(); err != nil {
		return err
	}
	m.allSynced()
	return nil
}

func (m *crashModel) allSynced() {
	for i, values := range m.since {
		if len(values) > 0 {
			m.synced[i], m.since[i] = values[len(values)-1], nil
		}
	}
}

func (m *crashModel) retire() error {
	gen := m.s.Generation()
	if err := m.sync(); err != nil {
		return err
	}
	m.must = [4]bool{}
	return m.s.Retire(gen)
}

func (m *crashModel) update() error {
	m.epochs = []uint64{m.epoch, m.epoch + 1}
	if err := m.s.Update(func(meta *Meta) { meta.Epoch++; meta.Complete = true }); err != nil {
		return err
	}
	m.epoch++
	m.epochs = nil
	return nil
}

func (m *crashModel) save(missed uint32) error {
	missed &= 1<<(m.size/SectorSize) - 1
	m.saving, m.savingSaved, m.saves = true, true, missed
	set := dirty.New(m.size, SectorSize)
	for i := range m.size / SectorSize {
		if missed>>i&1 != 0 {
			set.Add(i*SectorSize, 1)
		}
	}
	if err := m.s.SaveOutOfSync(crashPeer, set); err != nil {
		return err
	}
	m.saving, m.saved, m.missed = false, true, missed
	return nil
}

func (m *crashModel) remove() error {
	m.saving, m.savingSaved, m.saves = true, false, 0
	if err := m.s.RemoveOutOfSync(crashPeer); err != nil {
		return err
	}
	m.saving, m.saved, m.missed = false, false, 0
	return nil
}

func (m *crashModel) stop() error {
	m.mayBeClean = true
	if err := m.s.CloseClean(); err != nil {
		return err
	}
	m.allSynced()
	return m.open()
}

// grow ends without a stop, or after one, and writes to what it gained.
func (m *crashModel) grow() error {
	next := min(m.size+crashRegion/2, crashLargest)
	if next == m.size {
		return nil
	}
	if err := m.s.Close(); err != nil {
		return err
	}
	m.grows = next
	if err := m.openAs(next, true); err != nil {
		return err
	}
	m.size, m.grows = next, 0
	return m.write(next-SectorSize, SectorSize)
}

// openAny opens the store after a crash, which may have cut a growth off: it has the old
// size then, or the new one, or is made to have the new one.
func (m *crashModel) openAny() error {
	if m.grows == 0 {
		return m.open()
	}
	if m.goesOn {
		if err := m.openAs(m.grows, true); err != nil {
			return err
		}
		m.size, m.grows = m.grows, 0
		return nil
	}
	err := m.open()
	if err != nil && strings.Contains(err.Error(), fmt.Sprintf("its size is %d bytes, not the %d asked for", m.grows, m.size)) {
		m.size = m.grows
		err = m.open()
	}
	if err == nil {
		m.grows = 0
	}
	return err
}

// reopen opens the store after a crash and compares it with the model.
func (m *crashModel) reopen(power bool) error {
	clean := m.mayBeClean
	if power {
		m.boot++
	}
	if err := m.openAny(); err != nil {
		return err
	}
	return errors.Join(m.checkData(power), m.checkMeta(power, clean), m.checkMissed(), errors.Join(m.s.Warnings()...))
}

func (m *crashModel) checkData(power bool) error {
	p := make([]byte, m.size)
	if err := m.s.ReadAt(p, 0); err != nil {
		return err
	}
	if found, err := m.s.data.Size(); err != nil || found != m.size || m.s.Size() != m.size || m.s.Meta().Size != m.size {
		return fmt.Errorf("the data has %d bytes (%v) and the store %d, want %d", found, err, m.s.Size(), m.size)
	}
	intents := m.s.Intents()
	for i := range m.size / SectorSize {
		sector := p[i*SectorSize:][:SectorSize]
		value := sector[0]
		switch {
		case !bytes.Equal(sector, bytes.Repeat(sector[:1], SectorSize)):
			return fmt.Errorf("sector %d is torn", i)
		case value != m.synced[i] && !slices.Contains(m.since[i], value):
			return fmt.Errorf("sector %d is %d, synced was %d, written since %v", i, value, m.synced[i], m.since[i])
		case value != m.synced[i] && !intents.Has(i*SectorSize, 1):
			return fmt.Errorf("sector %d is %d, not %d as synced, but there is no intent", i, value, m.synced[i])
		}
	}
	for r, must := range m.must {
		if must && !intents.Has(int64(r)*crashRegion, 1) {
			return fmt.Errorf("the intent of region %d is lost", r)
		}
	}
	if m.s.New() && (m.written || !bytes.Equal(p, make([]byte, m.size))) {
		return errors.New("a store that was written to calls itself new")
	}
	return nil
}

func (m *crashModel) checkMeta(power, clean bool) error {
	meta := m.s.Meta()
	if m.epochs == nil {
		m.epochs = []uint64{m.epoch}
	}
	full := meta.Epoch > 0
	lossy := full && power && !m.s.New()
	switch {
	case !slices.Contains(m.epochs, meta.Epoch):
		return fmt.Errorf("epoch is %d, want one of %v", meta.Epoch, m.epochs)
	case meta.Complete != (full && !meta.Lossy):
		return fmt.Errorf("complete %v, lossy %v in epoch %d", meta.Complete, meta.Lossy, meta.Epoch)
	case meta.Lossy && !lossy, !meta.Lossy && lossy && !clean:
		return fmt.Errorf("lossy is %v after a power loss (%v) or a clean stop (%v)", meta.Lossy, power, clean)
	case meta.Clean || meta.Boot != [16]byte{m.boot} || meta.Replica != [16]byte{1}:
		return fmt.Errorf("an open store says %+v", meta)
	}
	return nil
}

func (m *crashModel) checkMissed() error {
	set, err := m.s.OutOfSync(crashPeer)
	if !m.saving {
		m.saves, m.savingSaved = m.missed, m.saved
	}
	if errors.Is(err, fs.ErrNotExist) {
		if m.saved && m.savingSaved {
			return errors.New("the out-of-sync bitmap is lost")
		}
		return nil
	}
	if err != nil {
		return err
	}
	if !m.saved && !m.savingSaved {
		return errors.New("an out-of-sync bitmap is there that was removed")
	}
	var found uint32
	for i := range m.size / SectorSize {
		if set.Has(i*SectorSize, 1) {
			found |= 1 << i
		}
	}
	if both, any := m.missed&m.saves, m.missed|m.saves; found&both != both || found&^any != 0 {
		return fmt.Errorf("out of sync are %08x, neither %08x nor %08x", found, m.missed, m.saves)
	}
	return nil
}
