-- Last of the folder: who may execute what the files before it have added.
select df._close();
