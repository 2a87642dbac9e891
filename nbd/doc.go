// Package nbd serves block volumes over the NBD protocol and talks to such
// servers.
package nbd
