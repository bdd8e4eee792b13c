package main

import (
	"encoding/json"
	"io"
	"net/http"
)

// review is an AdmissionReview of admission.k8s.io/v1, with the fields that are used here.
type review struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Request    *request `json:"request,omitempty"`
	Response   *result  `json:"response,omitempty"`
}

type request struct {
	UID    string          `json:"uid"`
	Object json.RawMessage `json:"object"`
}

type result struct {
	UID     string  `json:"uid"`
	Allowed bool    `json:"allowed"`
	Status  *status `json:"status,omitempty"`
}

type status struct {
	Message string `json:"message"`
}

// serve is a validating webhook: it admits what upstream's webhooks admit.
func serve(address, certificate, key string) error {
	return http.ListenAndServeTLS(address, certificate, key, http.HandlerFunc(answer))
}

func answer(writer http.ResponseWriter, incoming *http.Request) {
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
	if err := admitDocument(asked.Request.Object); err != nil {
		verdict.Allowed, verdict.Status = false, &status{Message: err.Error()}
	}
	asked.Request, asked.Response = nil, verdict
	writer.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(writer).Encode(asked)
}

// admitDocument admits an object of a kind that upstream has a type for, and every other kind.
func admitDocument(document []byte) error {
	var what head
	if err := json.Unmarshal(document, &what); err != nil {
		return err
	}
	newObject, ok := known[what.APIVersion+" "+what.Kind]
	if !ok {
		return nil
	}
	return admit(newObject(), document)
}
