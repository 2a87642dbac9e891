//go:build sabotage

package sabotage

var broken string

// Break breaks the rule of that name and no other; none if it is empty. Nothing that
// asks On may run meanwhile.
func Break(name string) { broken = name }

// On says whether the rule of that name is broken.
func On(name string) bool { return name == broken }
