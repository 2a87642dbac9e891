package mirror

import "crypto/sha256"

// digestBlock is what one digest of a sum covers, in bytes: resync copies the
// blocks that differ.
const (
	digestBlock = 64 << 10
	digestSize  = sha256.Size
)

// maxSum bounds the range of one sum that is not all zeroes: its digests fit one
// frame, and reading it holds up the writes behind it for a millisecond or two.
const maxSum = 4 << 20

// digestsOf returns a SHA-256 for each digestBlock of r.
func digestsOf(s Store, r Range) ([]byte, error) {
	data := make([]byte, min(r.Len, digestBlock))
	var digests []byte
	for off := r.Off; off < r.end(); off += digestBlock {
		part := data[:min(digestBlock, r.end()-off)]
		if err := s.ReadAt(part, off); err != nil {
			return nil, err
		}
		sum := sha256.Sum256(part)
		digests = append(digests, sum[:]...)
	}
	return digests, nil
}

// allZero says whether r reads as zeroes. Holes cost nothing.
func allZero(s Store, r Range) (bool, error) {
	buf := make([]byte, digestBlock)
	for off := r.Off; off < r.end(); {
		start, end, err := s.Data(off)
		if err != nil {
			return false, err
		}
		for off = min(start, r.end()); off < min(end, r.end()); {
			part := buf[:min(int64(len(buf)), min(end, r.end())-off)]
			if err := s.ReadAt(part, off); err != nil {
				return false, err
			}
			if !isZero(part) {
				return false, nil
			}
			off += int64(len(part))
		}
	}
	return true, nil
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
