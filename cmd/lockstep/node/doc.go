// Package node is the process lockstep node: it joins a node's part in the raft group
// (control), in its volumes (host), and NBD, on one node port, and answers the admin
// API.
package node
