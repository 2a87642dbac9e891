package main

import (
	"strings"
	"testing"
)

func TestByteSizeParse(t *testing.T) {
	for _, tc := range []struct {
		text  string
		bytes byteSize
		print string
	}{
		{"0", 0, "0"},
		{"4096", 4096, "4KiB"},
		{"513", 513, "513"},
		{"4KiB", 4096, "4KiB"},
		{"4k", 4096, "4KiB"},
		{"512MiB", 512 << 20, "512MiB"},
		{"512mib", 512 << 20, "512MiB"},
		{"1GiB", 1 << 30, "1GiB"},
		{" 1G ", 1 << 30, "1GiB"},
		{"1.5GiB", 3 << 29, "1536MiB"},
		{"16TiB", 16 << 40, "16TiB"},
		{"7EiB", 7 << 60, "7EiB"},
		{"9223372036854775807", 1<<63 - 1, "9223372036854775807"},
	} {
		var b byteSize
		if err := b.UnmarshalText([]byte(tc.text)); err != nil {
			t.Errorf("%q: %v", tc.text, err)
			continue
		}
		if b != tc.bytes || b.String() != tc.print {
			t.Errorf("%q = %d, printed %q; want %d, %q", tc.text, b, b, tc.bytes, tc.print)
		}
	}
}

func TestByteSizeRefuses(t *testing.T) {
	for text, why := range map[string]string{
		"":                    "is not a size",
		"GiB":                 "is not a size",
		"-1":                  "is not a size",
		"-1GiB":               "is not a size",
		"1GB":                 "write it as 1GiB", // 10^9 or 2^30? Not ours to guess.
		"1 GiB x":             "is not a size",
		"1GiB512MiB":          "is not a size",
		"0x1000":              "is not a size",
		"1.5":                 "is not a size",
		"8EiB":                "too large",
		"99999999999999999G":  "too large",
		"9223372036854775808": "is not a size",
	} {
		b := byteSize(42)
		err := b.UnmarshalText([]byte(text))
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: error %v, want %q in it", text, err, why)
		}
		if b != 42 {
			t.Errorf("%q: refused, yet it changed the value to %d", text, b)
		}
	}
}

func FuzzByteSize(f *testing.F) {
	for _, s := range []string{"1GiB", "4k", "4096", "8EiB", "0.0000001K"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var first, second byteSize
		if first.UnmarshalText([]byte(s)) != nil {
			return
		}
		if err := second.UnmarshalText([]byte(first.String())); err != nil || second != first {
			t.Fatalf("%q gave %d, printed as %q, read back as %d: %v", s, first, first, second, err)
		}
	})
}
