// Package sabotage lets tests break the protocol on purpose, one rule at a time, to
// show that they notice. A place where a rule can be broken asks On with its
// name:
//
//	if sabotage.On("fence") { ... }
//
// Without the build tag sabotage, On is constantly false, and the compiler removes
// the question with what it guards: a program that is not a test cannot be sabotaged.
package sabotage
