package main

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/alecthomas/units"
)

// byteSize is a number of bytes on the command line, 0 to 8 EiB - 1: "1GiB",
// "512MiB", "1.5TiB", "4k" or plain "4096". Units are powers of two. "1GB" is
// refused, because half the field means 10^9 by it and two replicas must agree.
type byteSize int64

var sizePattern = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)([KMGTPE])(?:IB)?$`)

// UnmarshalText makes byteSize a kong flag type.
func (b *byteSize) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		*b = byteSize(n)
		return nil
	}
	parts := sizePattern.FindStringSubmatch(strings.ToUpper(s))
	if parts == nil {
		return fmt.Errorf("%q is not a size: write it as 1GiB, 512MiB, 4KiB or in plain bytes", s)
	}
	n, err := units.ParseBase2Bytes(parts[1] + parts[2] + "iB")
	// The library's bound is a float64, which cannot tell 2^63 from 2^63-1.
	if err != nil || n < 0 || n == math.MaxInt64 {
		return fmt.Errorf("%q is too large a size: the most is 7EiB", s)
	}
	*b = byteSize(n)
	return nil
}

// String gives the largest unit that states the size exactly; UnmarshalText
// reads it back as the same number.
func (b byteSize) String() string {
	const letters = "KMGTPE"
	n, unit := int64(b), -1
	for n != 0 && n%1024 == 0 && unit+1 < len(letters) {
		n, unit = n/1024, unit+1
	}
	if unit < 0 {
		return strconv.FormatInt(n, 10)
	}
	return fmt.Sprintf("%d%ciB", n, letters[unit])
}
