package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"lockstep/wanem"
)

type wanCmd struct {
	Profiles wanProfilesCmd `cmd:"" help:"List the built-in link profiles and where their figures come from."`
	Delay    wanDelayCmd    `cmd:"" help:"Turn distances into delays, and round trip times into distances."`
	Apply    wanApplyCmd    `cmd:"" help:"Put one direction of a link on a real interface (what leaves it)."`
	Show     wanShowCmd     `cmd:"" help:"Show the links that are on interfaces, and what they dropped."`
	Clear    wanClearCmd    `cmd:"" help:"Take a link off an interface."`
	Check    wanCheckCmd    `cmd:"" help:"Prove the link that this machine can make: set, read back and measure all it can do."`
	GC       wanGCCmd       `cmd:"" name:"gc" help:"Remove what killed sweeps left behind."`
}

type wanProfilesCmd struct {
	JSON bool `help:"Print JSON."`
}

// Run prints the profiles.
func (c wanProfilesCmd) Run() error {
	profiles := wanem.Profiles()
	if c.JSON {
		out := make([]profileFacts, len(profiles))
		for i, p := range profiles {
			out[i] = factsOf(p)
		}
		return printJSON(out)
	}
	return printTable(func(w io.Writer) {
		fmt.Fprintln(w, "PROFILE\tKM OF\tUS/KM\tFIXED, ONE WAY\tPUBLISHED LIMIT\tWHAT IT IS")
		for _, p := range profiles {
			f := factsOf(p)
			fmt.Fprintf(w, "%s\t%s\t%.4f\t%s\t%s\t%s\n",
				f.Name, f.Kind, f.USPerKm, wanem.FormatDelay(p.Fixed()), limitText(p), f.Note)
		}
		fmt.Fprintln(w, "\nSources:")
		for _, p := range profiles {
			fmt.Fprintf(w, "  %s\t%s\n", p.Name, p.Source)
		}
	})
}

// profileFacts is a profile as a program reads it.
type profileFacts struct {
	Name        string     `json:"name"`
	Kind        wanem.Kind `json:"kind"`
	RouteFactor float64    `json:"route_factor"`
	USPerKm     float64    `json:"us_per_km"`
	EquipmentUS float64    `json:"equipment_us"`
	SpaceKm     float64    `json:"space_km"`
	FixedUS     float64    `json:"fixed_us"`
	JitterUS    float64    `json:"jitter_us"`
	Loss        float64    `json:"loss"`
	LimitRTTUS  float64    `json:"limit_rtt_us,omitempty"`
	LimitKm     float64    `json:"limit_km,omitempty"`
	Note        string     `json:"note"`
	Source      string     `json:"source"`
}

func factsOf(p wanem.Profile) profileFacts {
	return profileFacts{
		Name: p.Name, Kind: p.Kind, RouteFactor: p.Kind.Factor(),
		USPerKm: p.USPerKm(), EquipmentUS: microseconds(p.Equipment),
		SpaceKm: p.Space.Kilometres(), FixedUS: microseconds(p.Fixed()),
		JitterUS: microseconds(p.Jitter), Loss: p.Loss,
		LimitRTTUS: microseconds(p.LimitRTT), LimitKm: p.LimitDistance.Kilometres(),
		Note: p.Note, Source: p.Source,
	}
}

func limitText(p wanem.Profile) string {
	var parts []string
	if p.LimitRTT > 0 {
		parts = append(parts, fmt.Sprintf("%v RTT", p.LimitRTT))
	}
	if p.LimitDistance > 0 {
		parts = append(parts, p.LimitDistance.String())
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

// pathFlags choose what a kilometre costs.
type pathFlags struct {
	Profile   profileFlag    `default:"fibre" help:"Built-in profile: see lockstep wan profiles (default fibre)." placeholder:"NAME"`
	Kind      *wanem.Kind    `help:"What kilometres are counted along, instead of the profile's: fibre, air or internet." placeholder:"KIND"`
	Equipment *time.Duration `help:"One-way delay of everything but the line, instead of the profile's, as 20us." placeholder:"DURATION"`
}

func (f pathFlags) profile() (wanem.Profile, error) {
	p := wanem.Profile(f.Profile)
	if f.Kind != nil {
		p.Kind = *f.Kind
	}
	if f.Equipment != nil {
		p.Equipment = *f.Equipment
	}
	if err := p.Validate(); err != nil {
		return p, misuse{err}
	}
	return p, nil
}

type wanDelayCmd struct {
	KM        []distanceFlag  `name:"km" help:"Distances, as 100 or 10,50,100 (also 500m, 62mi). Default: the profile's published limit." placeholder:"N,..."`
	RTT       []time.Duration `name:"rtt" help:"Round trip times to turn into distances, as 5ms. Default: the profile's published limit." placeholder:"DURATION,..."`
	pathFlags `embed:""`
	JSON      bool `help:"Print JSON."`
}

type delayFacts struct {
	Profile profileFacts `json:"profile"`
	Delays  []delayFact  `json:"delays,omitempty"`
	Reach   []reachFact  `json:"reach,omitempty"`
}

type delayFact struct {
	Km       float64 `json:"km"`
	OneWayUS float64 `json:"one_way_us"`
	RTTUS    float64 `json:"rtt_us"`
}

// reachFact has null where not even distance 0 fits.
type reachFact struct {
	RTTUS           float64  `json:"rtt_us"`
	KmOneRoundTrip  *float64 `json:"km_one_round_trip"`
	KmTwoRoundTrips *float64 `json:"km_two_round_trips"`
}

// Run prints one way and round trip for every distance, and the distance for every round trip.
func (c wanDelayCmd) Run() error {
	p, err := c.profile()
	if err != nil {
		return err
	}
	distances, rtts := c.KM, c.RTT
	if len(distances)+len(rtts) == 0 {
		if p.LimitDistance > 0 {
			distances = []distanceFlag{distanceFlag(p.LimitDistance)}
		}
		if p.LimitRTT > 0 {
			rtts = []time.Duration{p.LimitRTT}
		}
	}
	if len(distances)+len(rtts) == 0 {
		return misuse{fmt.Errorf("turn distance into delay: neither --km nor --rtt given, and profile %s has no published limit", p.Name)}
	}
	facts := delayFacts{Profile: factsOf(p)}
	for _, d := range distances {
		link := p.Link(wanem.Distance(d))
		if err := link.Validate(); err != nil {
			return misuse{err}
		}
		forward, _ := link.Delays()
		facts.Delays = append(facts.Delays, delayFact{wanem.Distance(d).Kilometres(), microseconds(forward), microseconds(link.RTT())})
	}
	for _, rtt := range rtts {
		if rtt < 0 {
			return misuse{fmt.Errorf("turn round trip time into distance: --rtt %v: use a duration from 0 up", rtt)}
		}
		facts.Reach = append(facts.Reach, reachFact{microseconds(rtt), reachKm(p, rtt, 1), reachKm(p, rtt, 2)})
	}
	if c.JSON {
		return printJSON(facts)
	}
	return printTable(facts.print)
}

func reachKm(p wanem.Profile, rtt time.Duration, roundTrips int) *float64 {
	d, ok := p.Reach(rtt, roundTrips)
	if !ok {
		return nil
	}
	km := d.Kilometres()
	return &km
}

func (f delayFacts) print(w io.Writer) {
	fmt.Fprintf(w, "%s: one way = km (%s) x %.4f us + %.0f us; RTT = twice that\n",
		f.Profile.Name, f.Profile.Kind, f.Profile.USPerKm, f.Profile.FixedUS)
	if len(f.Delays) > 0 {
		fmt.Fprintln(w, "\nKM\tONE WAY\tRTT")
	}
	for _, d := range f.Delays {
		fmt.Fprintf(w, "%.6g\t%s\t%s\n", d.Km, delayText(d.OneWayUS), delayText(d.RTTUS))
	}
	if len(f.Reach) > 0 {
		fmt.Fprintln(w, "\nONE WAY\tRTT\tKM AT ONE ROUND TRIP A WRITE\tAT TWO")
	}
	for _, r := range f.Reach {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", delayText(r.RTTUS/2), delayText(r.RTTUS), kmText(r.KmOneRoundTrip), kmText(r.KmTwoRoundTrips))
	}
}

func kmText(km *float64) string {
	if km == nil {
		return "out of reach"
	}
	return fmt.Sprintf("%.1f", *km)
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func delayText(us float64) string {
	return wanem.FormatDelay(time.Duration(us * float64(time.Microsecond)))
}

func printJSON(v any) error {
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(v)
}

func printTable(fill func(io.Writer)) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fill(w)
	return w.Flush()
}
