// Package control is the raft group that decides who is primary.
package control
