package main

import "lockstep/wanem"

// The flag types of links: each reads what the parser of its name in package
// wanem reads, so that kong reports a bad value with the flag it was given for.

type profileFlag wanem.Profile

func (f *profileFlag) UnmarshalText(text []byte) error {
	p, err := wanem.Named(string(text))
	*f = profileFlag(p)
	return err
}

type distanceFlag wanem.Distance

func (f *distanceFlag) UnmarshalText(text []byte) error {
	d, err := wanem.ParseDistance(string(text))
	*f = distanceFlag(d)
	return err
}

type rateFlag uint64

func (f *rateFlag) UnmarshalText(text []byte) error {
	bits, err := wanem.ParseRate(string(text))
	*f = rateFlag(bits)
	return err
}

type lossFlag float64

func (f *lossFlag) UnmarshalText(text []byte) error {
	loss, err := wanem.ParseLoss(string(text))
	*f = lossFlag(loss)
	return err
}
