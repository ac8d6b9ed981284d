package encryption

import (
	"errors"

	commonpb "go.temporal.io/api/common/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// DecodeJSON opens payloads that were written as JSON, as Temporal's UI and command line ask for it. What cannot be opened
// stays as it is, so that the rest can be shown.
func (k *Keyset) DecodeJSON(_ string, payloads []byte) ([]byte, error) {
	codec := &Codec{keys: k, anywhere: true}
	return transcode(payloads, func(payload *commonpb.Payload) (*commonpb.Payload, error) {
		if !Sealed(payload) {
			return payload, nil
		}
		opened, err := codec.open(payload)
		if err != nil {
			return payload, nil //nolint:nilerr // it is shown as it is
		}
		return opened, nil
	})
}

// EncodeJSON seals payloads that were written as JSON, for a namespace. They may be used for any workflow in it.
func (k *Keyset) EncodeJSON(namespace string, payloads []byte) ([]byte, error) {
	codec := k.Codec(namespace)
	return transcode(payloads, func(payload *commonpb.Payload) (*commonpb.Payload, error) {
		if Sealed(payload) {
			return payload, nil
		}
		return codec.seal(payload)
	})
}

func transcode(text []byte, each func(*commonpb.Payload) (*commonpb.Payload, error)) ([]byte, error) {
	var payloads commonpb.Payloads
	if err := protojson.Unmarshal(text, &payloads); err != nil {
		return nil, errors.New("the body must be Temporal's Payloads as JSON") // the error would quote it
	}
	for i, payload := range payloads.GetPayloads() {
		var err error
		if payloads.Payloads[i], err = each(payload); err != nil {
			return nil, err
		}
	}
	return protojson.Marshal(&payloads)
}
