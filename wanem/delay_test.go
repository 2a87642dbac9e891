package wanem_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"lockstep/wanem"
)

// TestScripts runs the specifications under testdata. Re-bless them with
// go test ./wanem -rewrite.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.Contains(path, "fuzz") {
			return
		}
		datadriven.RunTest(t, path, runVerb)
	})
}

func runVerb(t *testing.T, d *datadriven.TestData) string {
	verbs := map[string]func(*testing.T, *datadriven.TestData) (string, error){
		"delay": delayVerb, "reach": reachVerb, "profiles": profilesVerb,
		"parse-distance": parseVerb(func(s string) (fmt.Stringer, error) { return asStringer(wanem.ParseDistance(s)) }),
		"parse-kind":     parseVerb(func(s string) (fmt.Stringer, error) { return asStringer(wanem.ParseKind(s)) }),
		"parse-rate":     parseVerb(parseRate), "parse-loss": parseVerb(parseLoss),
	}
	verb, ok := verbs[d.Cmd]
	if !ok {
		t.Fatalf("%s: unknown verb %q", d.Pos, d.Cmd)
	}
	out, err := verb(t, d)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	return out
}

// delayVerb prints what a link costs: "delay km=100 profile=otn loss=0.1%".
func delayVerb(t *testing.T, d *datadriven.TestData) (string, error) {
	p, err := profileArg(d)
	if err != nil {
		return "", err
	}
	link := p.Link(0)
	for _, arg := range d.CmdArgs {
		if err := setArg(&link, arg.Key, arg.SingleVal(t)); err != nil {
			return "", err
		}
	}
	if err := link.Validate(); err != nil {
		return "", err
	}
	forward, back := link.Delays()
	if forward+back != link.RTT() {
		t.Fatalf("%s: %v + %v is not the RTT %v", d.Pos, forward, back, link.RTT())
	}
	return fmt.Sprintf("%v\nforward %v, back %v\n", link, forward, back), nil
}

// reachVerb prints how far a budget goes: "reach rtt=5ms trips=2".
func reachVerb(t *testing.T, d *datadriven.TestData) (string, error) {
	p, err := profileArg(d)
	if err != nil {
		return "", err
	}
	var budget string
	trips := 1
	d.ScanArgs(t, "rtt", &budget)
	d.MaybeScanArgs(t, "trips", &trips)
	rtt, err := time.ParseDuration(budget)
	if err != nil {
		return "", err
	}
	km, ok := p.Reach(rtt, trips)
	if !ok {
		return "out of reach\n", nil
	}
	return fmt.Sprintf("%.2f km\n", km.Kilometres()), nil
}

func profilesVerb(*testing.T, *datadriven.TestData) (string, error) {
	var b strings.Builder
	for _, p := range wanem.Profiles() {
		fmt.Fprintf(&b, "%s: %.4f us/km %s, fixed %v, limit %v %v\n",
			p.Name, p.USPerKm(), p.Kind, p.Fixed(), p.LimitRTT, p.LimitDistance)
	}
	return b.String(), nil
}

func profileArg(d *datadriven.TestData) (wanem.Profile, error) {
	var name string
	if arg, ok := d.Arg("profile"); ok {
		name = arg.Vals[0]
	}
	return wanem.Named(name)
}

func setArg(link *wanem.Link, key, value string) (err error) {
	switch key {
	case "profile":
	case "km":
		var km float64
		km, err = strconv.ParseFloat(value, 64)
		link.Distance = wanem.Distance(km) * wanem.Km
	case "kind":
		link.Profile.Kind, err = wanem.ParseKind(value)
	case "index":
		link.Profile.Index, err = strconv.ParseFloat(value, 64)
	case "equipment":
		link.Profile.Equipment, err = time.ParseDuration(value)
	case "jitter":
		link.Jitter, err = time.ParseDuration(value)
	case "loss":
		link.Loss, err = strconv.ParseFloat(value, 64)
	case "rate":
		link.RateBits, err = wanem.ParseRate(value)
	case "asymmetry":
		link.Asymmetry, err = strconv.ParseFloat(value, 64)
	default:
		err = fmt.Errorf("unknown argument %q", key)
	}
	return err
}

// parseVerb runs a parser over the input's lines and prints what it read.
func parseVerb(parse func(string) (fmt.Stringer, error)) func(*testing.T, *datadriven.TestData) (string, error) {
	return func(_ *testing.T, d *datadriven.TestData) (string, error) {
		var b strings.Builder
		for _, line := range strings.Split(d.Input, "\n") {
			value, err := parse(line)
			if err != nil {
				fmt.Fprintf(&b, "error: %v\n", err)
				continue
			}
			fmt.Fprintf(&b, "%s -> %s\n", line, value)
		}
		return b.String(), nil
	}
}

type text string

func (t text) String() string { return string(t) }

func asStringer[T fmt.Stringer](value T, err error) (fmt.Stringer, error) { return value, err }

func parseRate(s string) (fmt.Stringer, error) {
	bits, err := wanem.ParseRate(s)
	return text(fmt.Sprintf("%d bit/s, %s", bits, wanem.FormatRate(bits))), err
}

func parseLoss(s string) (fmt.Stringer, error) {
	loss, err := wanem.ParseLoss(s)
	return text(strconv.FormatFloat(loss, 'g', -1, 64)), err
}
