//go:build tools

// Package tools keeps the client in go.mod.
package tools

import _ "github.com/prometheus/alertmanager/cmd/amtool"
