package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"lockstep/wanem"
	"lockstep/wanem/netem"
)

type wanApplyCmd struct {
	Dev       string       `required:"" help:"Interface; packets that leave it are delayed, those that arrive are not." placeholder:"IF"`
	KM        distanceFlag `name:"km" required:"" help:"Distance, as 100, 500m or 62mi." placeholder:"N"`
	pathFlags `embed:""`
	Jitter    *time.Duration `help:"Standard deviation of the one-way delay, instead of the profile's, as 50us." placeholder:"DURATION"`
	Loss      *lossFlag      `help:"Share of packets lost, instead of the profile's, as 0.1%." placeholder:"SHARE"`
	Burst     float64        `help:"Mean length in packets of a burst of losses; 1 draws each loss alone." default:"1"`
	Rate      rateFlag       `help:"Capacity, as 10Gbit; 0 is unlimited." default:"0"`
	Force     bool           `help:"Replace a root qdisc that somebody else configured."`
}

// Run puts the delay on the interface until wan clear takes it off.
func (c wanApplyCmd) Run() error {
	link, config, err := c.config()
	if err != nil {
		return err
	}
	dev, err := interfaceNamed(c.Dev)
	if err != nil {
		return err
	}
	if c.Force {
		if err := removeForeign(dev); err != nil {
			return err
		}
	}
	switch err := netem.Apply(dev.Index, config); {
	case errors.Is(err, netem.ErrForeign):
		return fmt.Errorf("apply a link to %s: %w: remove it, or replace it with --force", dev.Name, err)
	case err != nil:
		return fmt.Errorf("apply a link to %s: %w", dev.Name, err)
	}
	fmt.Printf("%s: %v\n", dev.Name, link)
	fmt.Printf("What leaves %s is delayed one way; what arrives is not: apply the same at the other end.\n", dev.Name)
	fmt.Printf("Undo: lockstep wan clear --dev %s\n", dev.Name)
	return nil
}

func (c wanApplyCmd) config() (wanem.Link, netem.Config, error) {
	p, err := c.profile()
	if err != nil {
		return wanem.Link{}, netem.Config{}, err
	}
	link := p.Link(wanem.Distance(c.KM))
	link.RateBits = uint64(c.Rate)
	if c.Jitter != nil {
		link.Jitter = *c.Jitter
	}
	if c.Loss != nil {
		link.Loss = float64(*c.Loss)
	}
	if err := link.Validate(); err != nil {
		return link, netem.Config{}, misuse{err}
	}
	config, _ := netem.ForLink(link)
	switch {
	case !(c.Burst >= 1):
		return link, config, misuse{fmt.Errorf("apply a link: --burst %v: use a mean length in packets, 1 or more", c.Burst)}
	case c.Burst > 1:
		config.Loss, config.Bursts = 0, netem.Bursts(link.Loss, c.Burst)
	}
	if err := config.Validate(); err != nil {
		return link, config, misuse{err}
	}
	return link, config, nil
}

// removeForeign makes way for a link, but not on a kernel that cannot have one.
func removeForeign(dev *net.Interface) error {
	if err := netem.Available(); err != nil {
		return fmt.Errorf("apply a link to %s: %w", dev.Name, err)
	}
	q, err := netem.Show(dev.Index)
	if err != nil || q.Handle == 0 || q.Ours() {
		return err
	}
	return netem.Remove(dev.Index)
}

type wanShowCmd struct {
	Dev  string `help:"Interface. Default: every interface with a link on it." placeholder:"IF"`
	JSON bool   `help:"Print JSON."`
}

// shownLink is a qdisc as a program reads it; the delays are of one direction.
type shownLink struct {
	Dev      string      `json:"dev"`
	Qdisc    string      `json:"qdisc"`
	Lockstep bool        `json:"lockstep"`
	OneWayUS float64     `json:"one_way_us"`
	JitterUS float64     `json:"jitter_half_width_us"`
	Loss     float64     `json:"mean_loss"`
	RateBits uint64      `json:"rate_bits"`
	Limit    uint32      `json:"limit_packets"`
	Stats    netem.Stats `json:"stats"`
	config   netem.Config
}

// Run prints what the kernel holds, not what was asked for.
func (c wanShowCmd) Run() error {
	qdiscs, err := c.qdiscs()
	if err != nil {
		return err
	}
	links := []shownLink{}
	for _, q := range qdiscs {
		if c.Dev == "" && !q.Ours() {
			continue
		}
		dev, err := net.InterfaceByIndex(q.Index)
		if err != nil {
			return fmt.Errorf("show links: %w", err)
		}
		links = append(links, shownLink{
			Dev: dev.Name, Qdisc: q.Kind, Lockstep: q.Ours(),
			OneWayUS: microseconds(q.Config.Delay), JitterUS: microseconds(q.Config.Jitter), Loss: q.Config.MeanLoss(),
			RateBits: q.Config.RateBits, Limit: q.Config.Limit, Stats: q.Stats, config: q.Config,
		})
	}
	if c.JSON {
		return printJSON(links)
	}
	for _, l := range links {
		l.print(os.Stdout)
	}
	if len(links) == 0 {
		fmt.Println("no link on any interface")
	}
	return nil
}

func (c wanShowCmd) qdiscs() ([]netem.Qdisc, error) {
	if c.Dev == "" {
		return netem.List()
	}
	dev, err := interfaceNamed(c.Dev)
	if err != nil {
		return nil, err
	}
	q, err := netem.Show(dev.Index)
	return []netem.Qdisc{q}, err
}

func (l shownLink) print(w io.Writer) {
	switch {
	case l.Lockstep:
		fmt.Fprintf(w, "%s: one way, on what leaves: %v\n", l.Dev, l.config)
		fmt.Fprintf(w, "  sent %d packets, %d bytes; dropped %d; %d on their way\n",
			l.Stats.Packets, l.Stats.Bytes, l.Stats.Drops, l.Stats.Queued)
	case l.Qdisc == "":
		fmt.Fprintf(w, "%s: no link, the kernel's default qdisc\n", l.Dev)
	default:
		fmt.Fprintf(w, "%s: no link of lockstep's; root qdisc %s\n", l.Dev, l.Qdisc)
	}
}

type wanClearCmd struct {
	Dev string `required:"" help:"Interface." placeholder:"IF"`
}

// Run succeeds where there is nothing to clear: a script may call it twice.
func (c wanClearCmd) Run() error {
	dev, err := interfaceNamed(c.Dev)
	if err != nil {
		return err
	}
	switch err := netem.Clear(dev.Index); {
	case errors.Is(err, netem.ErrNone):
		fmt.Printf("%s: no link was on it\n", dev.Name)
		return nil
	case err != nil:
		return fmt.Errorf("clear %s: %w", dev.Name, err)
	}
	fmt.Printf("%s: link removed\n", dev.Name)
	return nil
}

func interfaceNamed(name string) (*net.Interface, error) {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return nil, misuse{fmt.Errorf("find interface %q: %w: ip -br link lists them", name, err)}
	}
	return dev, nil
}
