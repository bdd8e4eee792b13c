//go:build tools

// Package tools keeps the client in go.mod.
package tools

import _ "knative.dev/client/cmd/kn"
