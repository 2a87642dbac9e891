package mirror

import "crypto/sha256"

// digestBlock is what one digest of a sum covers, in bytes: resync copies the
// blocks that differ.
const (
	digestBlock = 64 << 10
	digestSize  = sha256.Size
)

// maxSum bounds the range of one sum that is not all zeroes: reading it holds up the
// writes behind it.
const maxSum = 512 << 10

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

// maxZeroes bounds how much is read to answer whether a hole is one here too:
// heartbeats wait meanwhile.
const maxZeroes = 4 * maxSum

// zeroes says how many bytes from the beginning of r read as zeroes, as far as it
// looked. Holes cost nothing.
func zeroes(s Store, r Range) (n int64, err error) {
	buf := make([]byte, digestBlock)
	for off, read := r.Off, int64(0); off < r.end(); {
		start, end, err := s.Data(off)
		if err != nil {
			return 0, err
		}
		for off = min(start, r.end()); off < min(end, r.end()); {
			part := buf[:min(int64(len(buf)), min(end, r.end())-off)]
			if err := s.ReadAt(part, off); err != nil {
				return 0, err
			}
			if read += int64(len(part)); !isZero(part) || read > maxZeroes {
				return off - r.Off, nil
			}
			off += int64(len(part))
		}
	}
	return r.Len, nil
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
