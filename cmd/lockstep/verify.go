package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"lockstep/cmd/lockstep/api"
	"lockstep/mirror"
)

type verifyCmd struct {
	asking
	Volume string `arg:"" optional:"" help:"The volume's name; not for a lockstep serve, which has one."`
	Repair bool   `help:"Copy the primary's data to where a replica differs."`
}

// Help is shown by lockstep verify --help.
func (verifyCmd) Help() string {
	return `It compares every replica with the primary's copy, by checksum, while the volume is
in use; writes wait only where a difference is looked at twice. Every replica has to
be in sync. A difference that is found is one that nothing in lockstep made: suspect
a disk, a controller, or somebody who wrote to a copy directly, and find out which
copy is right before --repair. The primary's always wins.

Exit status: 0 all copies are equal, 4 there were differences (even if they were
repaired), 1 not everything could be compared, 2 asked wrongly.

Examples:
  lockstep verify vol --node 10.0.0.1:7800
  lockstep verify vol --node 10.0.0.1:7800 --repair --json | jq .differs`
}

// Run verifies and prints what came out.
func (c *verifyCmd) Run(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	bars := newVerifyBars(os.Stderr)
	result, err := c.ask(ctx, client, bars.show)
	bars.stop()
	return c.answer(os.Stdout, result, err)
}

// ask returns what was found; with an error, what was found before it. An error of
// the volume's says itself that it is of a verify.
func (c *verifyCmd) ask(ctx context.Context, client *api.Client, progress func(mirror.VerifyProgress)) (*mirror.VerifyResult, error) {
	path := "/verify?"
	if c.Volume != "" {
		path = volumePath(c.Volume, "verify") + "?"
	}
	target := path + url.Values{"repair": {strconv.FormatBool(c.Repair)}}.Encode()
	answer, err := client.Ask(ctx, http.MethodPost, target, nil)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", refusedBy(err))
	}
	defer answer.Body.Close()
	lines := json.NewDecoder(answer.Body)
	for {
		var line api.VerifyLine
		switch err := lines.Decode(&line); {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("verify: %w", ctx.Err())
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return nil, fmt.Errorf("verify: lockstep at %s went away (it was stopped, or its log says why)", client.At())
		case err != nil:
			return nil, fmt.Errorf("verify: read the answer of %s: %w", client.At(), err)
		}
		if line.Progress != nil {
			progress(*line.Progress)
		}
		if line.Error != "" {
			return line.Result, errors.New(line.Error)
		}
		if line.Result != nil {
			return line.Result, nil
		}
	}
}

// answer prints what was found, and makes the exit code of it.
func (c *verifyCmd) answer(out io.Writer, result *mirror.VerifyResult, err error) error {
	if result == nil || result.Checked == 0 && len(result.Differs) == 0 {
		return cmp.Or(err, errors.New("verify: nothing was compared: the volume has no replica (see lockstep status)"))
	}
	if printing := c.print(out, result, err != nil); printing != nil {
		return errors.Join(err, printing)
	}
	switch {
	case err != nil:
		return err
	case len(result.Differs) > 0:
		return exitDiffers
	default:
		return nil
	}
}

func (c *verifyCmd) print(out io.Writer, result *mirror.VerifyResult, early bool) error {
	if c.JSON {
		if result.Differs == nil {
			result.Differs = []mirror.Difference{} // [], which programs count on
		}
		indented := json.NewEncoder(out)
		indented.SetIndent("", "  ")
		return indented.Encode(result)
	}
	return printVerified(out, result, early)
}

// mostDifferences is how many are listed for people; a program gets all.
const mostDifferences = 20

// printVerified is for people.
func printVerified(out io.Writer, r *mirror.VerifyResult, early bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(r.Differs) > 0 {
		fmt.Fprintln(w, "REPLICA\tOFFSET\tLENGTH\tREPAIRED")
	}
	var bytes, repaired int64
	for i, d := range r.Differs {
		word := "no"
		if d.Repaired {
			repaired += d.Len
			word = "yes"
		}
		bytes += d.Len
		if i < mostDifferences {
			fmt.Fprintf(w, "%s\t%d\t%d\t%s\n", d.Replica, d.Off, d.Len, word)
		}
	}
	if more := len(r.Differs) - mostDifferences; more > 0 {
		fmt.Fprintf(w, "... and %d more (--json has all)\n", more)
	}
	if len(r.Differs) > 0 {
		fmt.Fprintln(w)
	}
	took := time.Duration(r.Took * float64(time.Second)).Round(100 * time.Millisecond)
	fmt.Fprintf(w, "compared %s in %v: %s\n", sizeText(r.Checked), took, foundText(len(r.Differs), bytes, repaired, early))
	return w.Flush()
}

func foundText(ranges int, bytes, repaired int64, early bool) string {
	switch {
	case ranges > 0:
		return fmt.Sprintf("%s differed in %d places, %s of it repaired", sizeText(bytes), ranges, sizeText(repaired))
	case early:
		return "equal so far"
	default:
		return "all equal"
	}
}

// verifyBars shows how far a verification is, a bar a replica, if there is a
// terminal to show it on.
type verifyBars struct {
	bars *mpb.Progress // nil: no terminal
	of   map[string]*mpb.Bar
}

func newVerifyBars(out io.Writer) *verifyBars {
	b := &verifyBars{of: map[string]*mpb.Bar{}}
	if isTerminal(out) {
		b.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(64))
	}
	return b
}

func (b *verifyBars) show(p mirror.VerifyProgress) {
	if b.bars == nil {
		return
	}
	bar := b.of[p.Replica]
	if bar == nil {
		bar = b.bars.AddBar(p.Total,
			mpb.PrependDecorators(decor.Name(p.Replica+" "), decor.CountersKibiByte("% .1f of % .1f ")),
			mpb.AppendDecorators(decor.Percentage(), decor.Name("  ETA "), decor.AverageETA(decor.ET_STYLE_GO)))
		b.of[p.Replica] = bar
	}
	bar.SetCurrent(p.Done)
}

// stop leaves the bars as they are and waits for their goroutines.
func (b *verifyBars) stop() {
	if b.bars == nil {
		return
	}
	for _, bar := range b.of {
		bar.Abort(false) // no effect on a bar that is complete
	}
	b.bars.Wait()
}
