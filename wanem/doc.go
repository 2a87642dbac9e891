// Package wanem is the link model: it turns a distance into a delay. It is
// pure (no clock, network or randomness) and imports the standard library
// only; its subpackages netem and tun make a kernel keep the delay.
//
// # The model
//
//	one-way delay = km x route factor x index/c + space/c + equipment
//	RTT           = 2 x one-way delay
//
// c is the speed of light in vacuum, 299,792.458 km/s. The index is the group
// index of the fibre, 1.4682 unless the profile says otherwise, so a kilometre
// of fibre costs 4.8974 us one way and 100 km cost 490 us one way, 979 us RTT.
//
// The route factor makes fibre of the kilometres a person knows:
//
//	kind      factor  kilometres are counted along
//	fibre     1.0     the fibre itself (default)
//	air       1.3     the great circle; the line follows rights of way
//	internet  2.1     the great circle; the line is what public routing takes
//
// Space is a leg through vacuum whose length does not depend on where the two
// sites are: up to a satellite and down again (profiles leo and geo). Equipment
// is everything else that waits, one way, whatever the length.
//
// The model is the delay of an empty packet on an idle line. Serialisation
// (Link.RateBits), Link.Jitter and queueing come on top and belong to the
// package that enforces the link.
//
// # Limits
//
// "The synchronous limit" is not one number: Profile.Reach gives the distance
// at which a number of round trips fits into a budget. Replication that takes
// one round trip a write reaches twice as far as classic SCSI over Fibre
// Channel, which takes two (command, transfer ready, data, status). Profiles of
// products carry the limits that were published for them and say by whom.
//
// # Concurrency and errors
//
// Every type is a plain value and every function is safe for concurrent use.
// Validate reports what is wrong with a link and how to mend it; the other
// methods expect a valid one.
package wanem
