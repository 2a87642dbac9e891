package sweep

import (
	"bytes"
	"strings"
	"testing"
)

func TestReportIsSelfContained(t *testing.T) {
	r, err := inBubble(t, tailConfig(t.TempDir()), newFakeTarget())
	if err != nil {
		t.Fatal(err)
	}
	page, err := r.html()
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(page, []byte("<svg ")); n != 3 {
		t.Errorf("%d figures, want 3", n)
	}
	for _, bad := range []string{"src=", "href=", "@import", "url(", "NaN", "Inf", "#010000", "#ZgotmplZ"} {
		if bytes.Contains(page, []byte(bad)) {
			t.Errorf("the page holds %q", bad)
		}
	}
	for _, good := range []string{"A 4 KiB write at queue depth 1 takes 1.00 round trips", "1 ms: 8", "fill:var(--median)", "--seed"} {
		if !bytes.Contains(page, []byte(good)) {
			t.Errorf("the page lacks %q", good)
		}
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), r.Answer) || !strings.Contains(text.String(), "identical after each use in 12 trials (80 MiB compared)") {
		t.Errorf("text:\n%s", &text)
	}
}
