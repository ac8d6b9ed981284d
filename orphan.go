package bellhop

// Orphan is what stands at a provider and belongs to no operation that is under way or has succeeded.
type Orphan struct {
	Holding
	// Provider is the entry under which it was found.
	Provider string `json:"provider"`
	// OperationType is what its operation was to do. Empty: Temporal does not know the operation.
	OperationType Verb `json:"operation_type,omitempty"`
	// State is how the operation ended. Empty: Temporal does not know it.
	State State `json:"state,omitempty"`
	// Beside is an operation that succeeded on the same resource. What it brought into being may serve: a deletion would
	// take that too, so the orphan goes with the next operation on the resource.
	Beside string `json:"beside,omitempty"`
}

// OrphanReport is what was found at one moment.
type OrphanReport struct {
	// Orphans belong to operations that failed, were cancelled or were ended from outside, and to deletions that left
	// something.
	Orphans []Orphan `json:"orphans"`
	// Unknown belong to operations that Temporal does not know, or may have taken over what one did that it does not know.
	// That is no fault: it forgets what closed when its retention is over, and what serves may have been provisioned long
	// before that, or by another bellhop.
	Unknown []Orphan `json:"unknown"`
	// Looked counts the holdings that were looked at, by provider.
	Looked map[string]int `json:"looked"`
	// Unasked are the providers that could not be asked, and why.
	Unasked map[string]string `json:"unasked,omitempty"`
	// Omitted counts what is left out above, since an answer has a limit.
	Omitted int `json:"omitted,omitempty"`
}
