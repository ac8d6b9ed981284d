package scriptedecs

import (
	"encoding/base64"
	"sort"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// page cuts one page out of a list. The token names what comes last on a page, so that what is made or removed
// meanwhile neither repeats nor hides anything else.
func page(all []string, size *int32, token *string, usual int) (some []string, next *string, err error) {
	n := usual
	if size != nil {
		if *size < 1 || *size > 100 {
			return nil, nil, invalid("maxResults must be between 1 and 100.")
		}
		n = int(*size)
	}
	if token != nil {
		last, err := base64.RawURLEncoding.DecodeString(*token)
		if err != nil || len(last) == 0 {
			return nil, nil, invalid("Invalid token.")
		}
		at := sort.Search(len(all), func(i int) bool { return all[i] > string(last) })
		for i, one := range all { // lists are not all in the order of their names
			if one == string(last) {
				at = i + 1
			}
		}
		all = all[at:]
	}
	if len(all) <= n {
		return all, nil, nil
	}
	return all[:n], aws.String(base64.RawURLEncoding.EncodeToString([]byte(all[n-1]))), nil
}
