-- The claim under which a failure was counted last: an engine that did not hear that it was says it again.
alter table df._work add column blamed uuid;
