package main

import (
	"context"

	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/mount/storage"
)

// guarded is the half of the graph that deals with secrets.
type guarded struct {
	images storage.Images // nil: no image can be pulled
}

func (p *process) guard() *guarded { return &guarded{} }

func (p *process) openWorkload(*graph) error { return nil }

func (g *guarded) stop(context.Context) error { return nil }

func (g *guarded) metrics(*guest.Exposition) {}
