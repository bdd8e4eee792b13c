package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	authentication "k8s.io/api/authentication/v1"
	"knative.dev/pkg/apis"
	"knative.dev/pkg/apis/duck"
)

// review is an AdmissionReview of admission.k8s.io/v1, with the fields that are used here.
type review struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Request    *request `json:"request,omitempty"`
	Response   *result  `json:"response,omitempty"`
}

type request struct {
	UID       string                  `json:"uid"`
	UserInfo  authentication.UserInfo `json:"userInfo"`
	Operation string                  `json:"operation"`
	Object    json.RawMessage         `json:"object"`
	OldObject json.RawMessage         `json:"oldObject"`
}

type result struct {
	UID       string  `json:"uid"`
	Allowed   bool    `json:"allowed"`
	Patch     []byte  `json:"patch,omitempty"`
	PatchType string  `json:"patchType,omitempty"`
	Status    *status `json:"status,omitempty"`
}

type status struct {
	Message string `json:"message"`
}

// serve is two webhooks: /default sets upstream's defaults, /validate admits what upstream admits.
func serve(address, certificate, key string) error {
	handler := http.NewServeMux()
	handler.HandleFunc("/default", answer(defaults))
	handler.HandleFunc("/validate", answer(validate))
	return http.ListenAndServeTLS(address, certificate, key, handler)
}

// answer responds to an AdmissionReview with the patch, or with the error as the reason.
func answer(admission func(*request) ([]byte, error)) http.HandlerFunc {
	return func(writer http.ResponseWriter, incoming *http.Request) {
		var asked review
		body, err := io.ReadAll(incoming.Body)
		if err == nil {
			err = json.Unmarshal(body, &asked)
		}
		if err != nil || asked.Request == nil {
			http.Error(writer, "not an AdmissionReview", http.StatusBadRequest)
			return
		}
		verdict := &result{UID: asked.Request.UID, Allowed: true}
		patch, err := admission(asked.Request)
		if err != nil {
			verdict.Allowed, verdict.Status = false, &status{Message: err.Error()}
		} else if patch != nil {
			verdict.Patch, verdict.PatchType = patch, "JSONPatch"
		}
		asked.Request, asked.Response = nil, verdict
		writer.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(writer).Encode(asked)
	}
}

// defaults is the change that upstream's defaulting webhook makes; nil for other kinds.
func defaults(asked *request) ([]byte, error) {
	ctx, object, err := decoded(asked)
	if object == nil || err != nil {
		return nil, err
	}
	if _, ok := object.(apis.Defaultable); !ok {
		return nil, nil
	}
	if err := defaulted(ctx, object, asked.Object); err != nil {
		return nil, err
	}
	return duck.CreateBytePatch(asked.Object, object)
}

// validate admits an object of a kind that upstream has a type for, and every other kind.
func validate(asked *request) ([]byte, error) {
	ctx, object, err := decoded(asked)
	if object == nil || err != nil {
		return nil, err
	}
	return nil, admit(ctx, object, asked.Object)
}

// decoded is an empty object of the kind, nil without a type upstream, and what happens to it.
func decoded(asked *request) (context.Context, any, error) {
	var what head
	if err := json.Unmarshal(asked.Object, &what); err != nil {
		return nil, nil, err
	}
	newObject, ok := known[what.APIVersion+" "+what.Kind]
	if !ok {
		return nil, nil, nil
	}
	ctx := apis.WithUserInfo(context.Background(), &asked.UserInfo)
	if asked.Operation != "UPDATE" {
		return apis.WithinCreate(ctx), newObject(), nil
	}
	previous := newObject()
	err := json.Unmarshal(asked.OldObject, previous)
	return apis.WithinUpdate(ctx, previous), newObject(), err
}
