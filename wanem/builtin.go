package wanem

import (
	"math"
	"time"
)

// Who says so. Figures of products change with their versions: the vendor's
// current support matrix decides, these are starting points for an experiment.
const (
	physics = "speed of light, group index 1.4682"
	assumed = "lockstep's assumption, "
)

// profiles holds the built-in ones: first paths, then products by name.
var profiles = []Profile{
	{
		Name:   "fibre",
		Note:   "the line alone, no equipment",
		Source: physics,
	},
	{
		Name:   "hollow-core",
		Index:  1.003,
		Note:   "light in air: a third less delay a kilometre",
		Source: "3.3 to 3.5 us/km as makers of hollow-core fibre state; 3.35 taken",
	},
	{
		Name:      "metro-dwdm",
		Equipment: 10 * time.Microsecond,
		Note:      "own wavelength in a city: two transponders with light error correction",
		Source:    assumed + "5 us a transponder",
	},
	{
		Name:      "otn",
		Equipment: 60 * time.Microsecond,
		Note:      "coherent line through one OTN cross-connect",
		Source:    assumed + "25 us a coherent transponder with soft-decision FEC, 10 us a cross-connect",
	},
	{
		Name:      "regional",
		Kind:      Air,
		Equipment: 200 * time.Microsecond,
		Note:      "carrier line between cities, kilometres as the crow flies",
		Source:    assumed + "four nodes of 50 us",
	},
	{
		Name:      "transcontinental",
		Kind:      Air,
		Equipment: 500 * time.Microsecond,
		Note:      "long-haul line over land, kilometres as the crow flies",
		Source:    assumed + "ten nodes of 50 us",
	},
	{
		// New York to London, 5,570 km: 71.9 ms RTT here, 54.6 ms at factor 1.
		// The cable laid for least delay has 58.95 ms (The Broadcast Bridge,
		// "Trans-Atlantic Network Latency Reduced").
		Name:      "transatlantic",
		Kind:      Air,
		Equipment: 500 * time.Microsecond,
		Note:      "submarine cable and backhaul, kilometres as the crow flies",
		Source:    assumed + "landing stations and backhaul of 250 us a side",
	},
	{
		// A bent pipe: up to a satellite and down to a gateway. The kilometres
		// are the fibre from the gateway on.
		Name:      "leo",
		Space:     2 * slantRange(550*Km, 40),
		Equipment: 10 * time.Millisecond,
		Jitter:    5 * time.Millisecond,
		Note:      "bent pipe over a low orbit (550 km, seen at 40 degrees), then fibre",
		Source: assumed + "10 ms for scheduling and modems; 20 ms RTT at best and 50 at the median were measured " +
			"(APNIC, \"Fact checking Starlink's performance figures\", 2022)",
	},
	{
		Name:      "geo",
		Space:     2 * slantRange(35786*Km, 30),
		Equipment: 20 * time.Millisecond,
		Note:      "bent pipe over the geostationary orbit (35,786 km, seen at 30 degrees), then fibre",
		Source:    "geometry; " + assumed + "20 ms for modems and framing",
	},
	{
		Name:     "dell-metro-node",
		LimitRTT: 10 * time.Millisecond,
		Note:     "Dell metro node (successor of VPLEX Metro): 5 or 10 ms RTT by configuration",
		Source:   "Dell metro node User's Guide, Metro HA",
	},
	{
		Name:          "hitachi-gad",
		LimitDistance: 500 * Km,
		Note:          "Hitachi global-active device",
		Source:        "Hitachi's figure as generally quoted (document not at hand)",
	},
	{
		Name:     "hpe-peer-persistence",
		LimitRTT: 5 * time.Millisecond,
		Note:     "HPE 3PAR Peer Persistence from OS 3.2.2 on (2.6 ms before)",
		Source:   "d8tadude.com, \"3PAR Peer Persistence\", 2016 (a customer's account)",
	},
	{
		Name:          "hpe-xp-continuous-access",
		LimitDistance: 200 * Km,
		Note:          "HP XP Continuous Access Synchronous over dark fibre",
		Source:        "HP SAN Design Reference Guide, table 167",
	},
	{
		Name:          "ibm-metro-mirror",
		LimitDistance: 300 * Km,
		Note:          "IBM DS8000 Metro Mirror",
		Source:        "IBM DS8000 10th generation documentation, \"Metro Mirror\"",
	},
	{
		Name:     "microsoft-storage-replica",
		LimitRTT: 5 * time.Millisecond,
		Note:     "Windows Server Storage Replica, synchronous: at most 5 ms RTT on average recommended",
		Source:   "Microsoft Press, \"Introducing Windows Server 2016\", chapter 3",
	},
	{
		Name:          "netapp-metrocluster-ip",
		LimitRTT:      7 * time.Millisecond,
		LimitDistance: 700 * Km,
		Note:          "NetApp MetroCluster IP: whichever limit comes first; loss at most 0.01 %, jitter 1.5 ms one way",
		Source:        "MetroCluster IP Installation and Configuration Guide, \"ISL requirements in shared networks\"",
	},
	{
		Name:     "pure-activecluster",
		LimitRTT: 11 * time.Millisecond,
		Note:     "Pure Storage ActiveCluster",
		Source:   "Pure Storage's figure as generally quoted (document not at hand)",
	},
	{
		Name:     "vmware-vsan-stretched",
		LimitRTT: 5 * time.Millisecond,
		Note:     "VMware vSAN stretched cluster, between the data sites",
		Source:   "drpranayjha.com, \"VCF 9 Stretched Clusters and Multi-Site Design\" (after VMware's requirement)",
	},
}

// slantRange returns the distance from a ground station to a satellite at an
// altitude that it sees at an elevation above its horizon: the third side of
// the triangle with the Earth's centre,
//
//	sqrt((R+h)^2 - (R cos e)^2) - R sin e
func slantRange(altitude Distance, elevationDegrees float64) Distance {
	const earthRadius = 6371 * Km // mean radius (IUGG R1)
	e := elevationDegrees * math.Pi / 180
	r, orbit := float64(earthRadius), float64(earthRadius+altitude)
	return Distance(math.Sqrt(orbit*orbit-math.Pow(r*math.Cos(e), 2)) - r*math.Sin(e))
}
