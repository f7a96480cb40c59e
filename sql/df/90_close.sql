-- Last of the folder: sets who may execute the functions that the files before it have added.
select df._close();
select df._read_by_row();
