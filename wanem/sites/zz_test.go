package sites

import ("testing";"fmt")

func TestZZ(t *testing.T) {
	for range 4 {
		s, err := Open(t.Context(), Config{})
		if err != nil { t.Fatal(err) }
		if err := s.set(km(50)); err != nil { t.Fatal(err) }
		line := ""
		for range 14 {
			got, err := s.ping(t.Context(), 40, replyTimeout)
			if err != nil { t.Fatal(err) }
			line += fmt.Sprintf("%4d ", (got.Median-km(50).RTT()).Microseconds())
		}
		t.Log(line)
		s.Close()
	}
}
