package wanem

import (
	"math"
)

var profiles = []Profile{
	{Name: "fibre", Note: "the line alone: no equipment"},
}

// slantRange returns the distance from a ground station to a satellite at an
// altitude that it sees at an elevation above its horizon: the third side of
// the triangle with the Earth's centre,
// sqrt((R+h)^2 - (R cos e)^2) - R sin e.
func slantRange(altitude Distance, elevationDegrees float64) Distance {
	const earthRadius = 6371 * Km // mean radius, IUGG R1 = 6371.009 km
	e := elevationDegrees * math.Pi / 180
	r, orbit := float64(earthRadius), float64(earthRadius+altitude)
	return Distance(math.Sqrt(orbit*orbit-math.Pow(r*math.Cos(e), 2)) - r*math.Sin(e))
}

