//go:build !sabotage

package sabotage

// On says whether the rule of that name is broken: never, in this build.
func On(string) bool { return false }
