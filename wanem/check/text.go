package check

import (
	"fmt"
	"io"
)

const line = "%-24s %12s %12s %12s %22s  %-8s %s\n"

// Header writes the head of the table.
func Header(w io.Writer) error {
	_, err := fmt.Fprintf(w, line, "ATTRIBUTE", "ASKED", "READ BACK", "MEASURED", "ALLOWED", "VERDICT", "NOTE")
	return err
}

// Write writes a row of the table.
func (r Row) Write(w io.Writer) error {
	asked, read, measured, allowed := "-", "-", "-", "-"
	if r.Verdict != Skipped {
		measured = r.text(r.Measured)
	}
	if r.Verdict == Passed || r.Verdict == Failed {
		asked, allowed = r.text(r.Asked), fmt.Sprintf("%s to %s", r.number(r.Low), r.text(r.High))
	}
	if r.ReadBack != nil {
		read = r.text(*r.ReadBack)
	}
	_, err := fmt.Fprintf(w, line, r.Attribute, asked, read, measured, allowed, r.Verdict, r.Note)
	return err
}

func (r Row) text(x float64) string {
	if r.Unit == "packets" {
		return r.number(x)
	}
	return r.number(x) + " " + r.Unit
}

func (r Row) number(x float64) string {
	switch r.Unit {
	case "us":
		return fmt.Sprintf("%.1f", x)
	case "packets":
		return fmt.Sprintf("%.4g", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// Conclude writes what the table says as a whole.
func (r Report) Conclude(w io.Writer) error {
	_, err := fmt.Fprintf(w, "\nThe median round trip was off by at most %.1f us, of %.1f allowed (%d us and the machine's own %.1f).\n",
		r.WorstUS, r.BaselineUS+micros(Precision), Precision.Microseconds(), r.BaselineUS)
	return err
}
