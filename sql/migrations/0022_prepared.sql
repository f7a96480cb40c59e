-- What our df prepared of a workflow's graph; null on the extension.
alter table pgflows.workflows rename column template to prepared;
