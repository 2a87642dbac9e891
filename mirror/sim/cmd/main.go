package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"lockstep/mirror/sim"
)

func main() {
	seed := flag.Uint64("seed", 1, "")
	span := flag.Duration("for", 10*time.Minute, "")
	v := flag.Bool("v", false, "")
	n := flag.Int("seeds", 0, "")
	flag.Parse()
	if *n == 0 {
		*n = 1
	}
	var total sim.Stats
	start := time.Now()
	for i := range *n {
		var out *os.File
		var r sim.Result
		if *v {
			out = os.Stdout
			r = sim.Run(*seed+uint64(i), *span, out)
		} else {
			r = sim.Run(*seed+uint64(i), *span, nil)
		}
		total.Add(r.Stats)
		for _, w := range r.Wrong {
			fmt.Println("seed", r.Seed, w)
		}
	}
	fmt.Println(total.String(), time.Since(start))
}
